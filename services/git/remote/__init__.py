"""Remotes: which URLs may be used, which addresses they may lead to, how a token travels, and the push.

Promises: a token reaches the one host that it is for, and no argv, log or error; no URL leads to what only this machine
can reach; a repository on this machine is our own user's, shows itself alone, and runs nothing; a branch is moved only
from where the caller expected it.
"""
