"""Git on trees that an agent may have written: branch, status, commit, and taking the whole tree as a commit.

Promises: whatever the tree's own `.git` makes git run, it runs in a sandbox, without our rights, files or network;
whatever an agent did to its `.git`, its files can be taken, and what comes out of the sandbox is data.
"""
