"""Owns the directories in which agents work: makes, lists and removes them. Knows no git.

Guarantees: a workspace exists completely or not at all, whatever is killed when; making one twice under the same id
makes one; removing one removes all that an agent may have left in it, and nothing outside of it; no copy is begun for
which the disk has no room.
"""
