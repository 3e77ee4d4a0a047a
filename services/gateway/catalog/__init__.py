"""Owns what jobs refer to: projects, repositories, templates, workers and work items.

Guarantees that a resource changes only by an update (except for a work item's state, which its jobs change), that
everything it refers to existed in the same project when the reference was made, and that a repository's token is shown
to nobody and logged nowhere.
"""
