"""Base trees: finds the commit to start from, and prepares a tree of it, once, for any number of workspaces.

Promises: a base is there whole or not at all, and never changes; the same commit asked for by many is built once; it
costs what differs from a base near by, where layers can be stacked, and `git status` in it reads no file twice.
"""
