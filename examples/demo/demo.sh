#!/usr/bin/env bash
# Boatyard's main use, from nothing to a pushed branch: an agent repairs a program. With ANTHROPIC_API_KEY that is Claude
# Code, if this machine has it, or else a model (DEMO_MODEL says which); without a key, a recording of a conversation that
# was written by hand answers in the model's place. DEMO_AGENT names another agent of `boatyard agents`, or is `program`
# for a small program without a model. Everything is in one temporary directory, and whatever this script starts, it ends.
# Extra arguments go to `boatyard run`, such as `--sandbox none`.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
PATH=$(cd "$here/../../.venv/bin" && pwd):$PATH
work=$(mktemp -d "${TMPDIR:-/tmp}/boatyard-demo.XXXXXX")
export BOATYARD_HOME=$work/home
export BOATYARD_EXECUTION_READ_ONLY_PATHS=$here
# The demo's git must not depend on the configuration of whoever runs it.
export GIT_CONFIG_GLOBAL=$work/gitconfig GIT_CONFIG_NOSYSTEM=1

allowed=
finish() {
  boatyard down >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

bold= plain=
if [[ -t 1 && -z ${NO_COLOR:-} ]]; then bold=$'\033[1m' plain=$'\033[0m'; fi

show() {
  local word line=
  for word in "$@"; do
    [[ $word == *" "* ]] && word="\"$word\""
    line+=" $word"
  done
  printf '\n%s$%s%s\n' "$bold" "$line" "$plain"
  "$@"
}

if ! boatyard doctor --sandbox >/dev/null 2>&1 && [[ " $* " != *" --sandbox none "* && " $* " != *" --sandbox=none "* ]]; then
  boatyard doctor --sandbox || true
  echo >&2 "The sandbox does not work on this machine; how to fix that is shown above."
  echo >&2 "To see the demo WITHOUT isolation, with an agent that has all your rights: make demo ARGS='--sandbox none'"
  exit 1
fi

if [[ " $* " == *" --sandbox none "* || " $* " == *" --sandbox=none "* ]]; then
  # No cell lets jobs choose this unless it is told to; this one is the demo's own.
  allowed=BOATYARD_EXECUTION_ALLOWED_TIERS=bubblewrap,container,none
  export "${allowed?}"
  export BOATYARD_GIT_SANDBOX_FILE_REMOTES=false
fi

git config --global user.name "Demo" && git config --global user.email "demo@example.invalid"
git config --global init.defaultBranch main
cp -r "$here/repository" "$work/berths"
git -C "$work/berths" init --quiet
git -C "$work/berths" add .
git -C "$work/berths" commit --quiet --message "Keep track of who lies at the berth"
git clone --quiet --bare "$work/berths" "$work/remote.git"
echo "A repository whose test fails, and a bare remote of it: $work/remote.git"

printf '\n%s$ %sboatyard up%s\n' "$bold" "${allowed:+"$allowed "}" "$plain"
touch "$work/up"
boatyard up --port-base "$(python "$here/free_ports.py")" >"$work/up" 2>"$work/up.log" &
for _ in $(seq 300); do
  grep -q '^ready' "$work/up" && break
  kill -0 $! 2>/dev/null || { cat "$work/up.log"; exit 1; }
  sleep 0.2
done
cat "$work/up"

model=${DEMO_MODEL:-claude-sonnet-5-5}
has_claude() {
  boatyard agents --json | python -c 'import json, sys
sys.exit(not any(agent["name"] == "claude" and not agent["complaint"] for agent in map(json.loads, sys.stdin)))'
}
echo
if [[ ${DEMO_AGENT:-} == program ]]; then
  agent=(--command "python3 $here/agent.py")
  echo "The agent is a small program without a model."
elif [[ -n ${DEMO_AGENT:-} ]]; then
  agent=(--agent "$DEMO_AGENT")
elif [[ -z ${ANTHROPIC_API_KEY:-} ]]; then
  agent=(--engine anthropic --model "$model" --max-turns 30 --replay "$here/repair.jsonl")
  echo "ANTHROPIC_API_KEY is not set: NO MODEL IS ASKED. A recording answers in its place, of a conversation that was written by hand;"
  echo "everything else is real."
elif has_claude; then
  agent=(--agent claude --model "$model")
  echo "ANTHROPIC_API_KEY is set: the agent is Claude Code with $model. This costs some cents."
else
  agent=(--engine anthropic --model "$model" --max-turns 30)
  echo "ANTHROPIC_API_KEY is set: the agent is $model, over the API. This costs some cents."
fi

show boatyard run --repo "$work/remote.git" --branch repair-berths \
  "${agent[@]}" --verify "python3 -B -m unittest" "$@" "Make the tests pass."
show boatyard ps
execution=$(boatyard ps --json | python -c 'import json, sys; print(json.loads(sys.stdin.readline())["execution_id"])')
show boatyard diff "$execution"
show git -C "$work/remote.git" log --oneline --graph --all
show boatyard down
