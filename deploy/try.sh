#!/bin/sh
# Tests the image on this machine: a cell of it, with the options that the README.md beside this script gives, runs a job,
# keeps its agent when each of its services is killed, starts it again when the container is killed, and still has all its
# data when the container is recreated. Leaves nothing behind.
#   deploy/try.sh [ENGINE] [IMAGE]     docker or podman, and what `make image` built
set -eu
engine=${1:-$(command -v docker || command -v podman)} image=${2:-boatyard}
cell=boatyard-try-$$

finish() {
    "$engine" rm --force "$cell" >/dev/null 2>&1 || true
    "$engine" volume rm "$cell" >/dev/null 2>&1 || true
}
trap finish EXIT
trap 'exit 130' INT TERM

fail() {
    echo "FAILED: $1" >&2
    "$engine" logs "$cell" >&2 || true
    exit 1
}

# The cell contacts nobody: it needs no network for this.
start() {
    "$engine" run --detach --name "$cell" --restart unless-stopped --stop-timeout 60 \
        --volume "$cell:/var/lib/boatyard" --network none \
        --cap-drop ALL --security-opt no-new-privileges --security-opt systempaths=unconfined \
        --security-opt "seccomp=$(dirname "$0")/seccomp.json" --security-opt apparmor=unconfined \
        --read-only --tmpfs /tmp:mode=1777 "$image" >/dev/null
    wait_until 120 "the cell is up" boatyard status
}

inside() { "$engine" exec "$cell" "$@"; }

wait_until() {
    seconds=$1 what=$2
    shift 2
    until inside "$@" >/dev/null 2>&1; do
        seconds=$((seconds - 1))
        [ $seconds -gt 0 ] || fail "waited in vain until $what"
        sleep 1
    done
}

# Submit a job whose agent counts for some time, then makes a change. Leaves the job's id in $job.
submit() {
    job=$(inside boatyard run --detach --json --repo /var/lib/boatyard/try.git --verify "test -s new.txt" \
        --command "sh -c 'for i in \$(seq $1); do echo line \$i; sleep 0.1; done; echo done > new.txt'" "Try it." |
        grep -o 'job-[a-z0-9]*')
    wait_until 60 "the agent writes" sh -c "boatyard logs $job | grep line"
}

# Check that the job's output has every line once, in order, and that its branch was pushed.
check() {
    wait_until 180 "the job has ended" sh -c "boatyard show $job | grep -E '^(SUCCEEDED|FAILED|CANCELLED)'"
    inside boatyard show "$job" | grep -q ^SUCCEEDED || fail "$(inside boatyard show "$job")"
    [ "$(inside boatyard logs "$job" | grep line)" = "$(seq -f 'line %.0f' "$1")" ] || fail "lines are lost or doubled"
    [ "$(inside git -C /var/lib/boatyard/try.git show "boatyard/$job:new.txt")" = "done" ] || fail "nothing was pushed"
}

attempts() { inside boatyard show --json "$job" | grep -o '"execution_ids": \[[^]]*' | grep -o 'exec-' | wc -l; }

start
inside boatyard doctor || fail "doctor"
inside sh -ec 'cd /var/lib/boatyard && git init --quiet --bare --initial-branch main try.git && cd "$(mktemp -d)" &&
    git init --quiet && git -c user.name=Try -c user.email=try@example.invalid commit --quiet --allow-empty -m "Begin" &&
    git push --quiet /var/lib/boatyard/try.git HEAD:main'

submit 10
check 10
echo "✓ a job: $job"

submit 200
inside sh -c 'for process in /proc/[0-9]*; do
    case $(tr "\0" " " < $process/cmdline) in
        *"-m services.execution.runner "*) ;;
        *"-m services."*) kill -KILL ${process#/proc/} ;;
    esac
done 2>/dev/null'
wait_until 120 "the services are back" boatyard status
check 200
[ "$(attempts)" -eq 1 ] || fail "the agent did not survive"
echo "✓ services killed: the agent went on"

submit 300
"$engine" kill "$cell" >/dev/null # kill at once: during a stop, the agent might finish
"$engine" start "$cell" >/dev/null
wait_until 120 "the cell is back" boatyard status
check 300
[ "$(attempts)" -eq 2 ] || fail "there were $(attempts) attempts"
echo "✓ container killed: another attempt"

"$engine" stop "$cell" >/dev/null
code=$("$engine" inspect --format '{{.State.ExitCode}}' "$cell")
[ "$code" -eq 0 ] || fail "the container was stopped, but ended with $code"
"$engine" rm "$cell" >/dev/null
start
check 300
echo "✓ container stopped and recreated: its volume has all data"
