"""Owns the repositories of this machine: mirrors, trees to start from, results of agents. Knows no agents.

Promises: nothing that an agent or a remote wrote is executed with our rights; a credential reaches the one network
command that needs it, and nothing else; what is built is there whole or not at all, whatever is killed when; the same
work taken twice is the same commit, and a branch is moved only from where it was expected to be.
"""
