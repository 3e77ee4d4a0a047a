"""Owns the directories in which agents work: makes them, lists them, removes them. Knows no git.

Promises: a workspace is there whole or not at all, whatever is killed when; making one twice under the same id makes
one; removing one removes all that an agent may have left in it, and nothing outside of it; no copy is begun that the
disk has no room for.
"""
