"""Repositories of our own: mirrors of remotes, results of agents, snapshots, plain clones, and how long each is kept.

Promises: one writer at a time for each repository, whatever process is killed; no agent can write to any of them; what
comes in from a working tree was checked object by object; what is removed is over its time, and nobody works from it.
"""
