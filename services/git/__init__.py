"""Owns this machine's repositories: mirrors, trees to start from, results of agents. Knows nothing of agents.

Promises: nothing that an agent or a remote wrote runs with our rights; a credential reaches the one network command
that needs it, and nothing else; what is built exists whole or not at all, whichever process is killed at whatever
moment; the same work taken twice is the same commit; a branch is moved only from the commit where the caller expected
it.

Rooms, the upper ones knowing the lower: `bases`; `stores`; `worktree`, `remote` and `disk`; `gitcmd`.
"""
