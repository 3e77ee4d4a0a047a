#!/bin/sh
# Install the real agents into a directory that is kept: install.sh DIRECTORY. Their exact versions are decision 69's.
set -e
mkdir -p "$1" && cd "$1"
[ -e node_modules/.bin/codex-acp ] || npm install --no-audit --no-fund --no-save --prefix . @anthropic-ai/claude-code-linux-x64@2.1.332 \
  @openai/codex@0.171.0 opencode-linux-x64@1.18.33 @google/gemini-cli@0.61.0 \
  @agentclientprotocol/claude-agent-acp@0.101.0 @agentclientprotocol/codex-acp@2.6.0
for pair in mini:mini-swe-agent==2.4.6 aider:aider-chat==0.86.2; do
  [ -e "${pair%%:*}/bin/${pair%%:*}" ] || { python3 -m venv "${pair%%:*}" && "${pair%%:*}/bin/pip" install -q "${pair#*:}"; }
done
mkdir -p bin
ln -sf ../node_modules/@anthropic-ai/claude-code-linux-x64/claude ../node_modules/opencode-linux-x64/bin/opencode \
  ../mini/bin/mini ../aider/bin/aider bin/
