"""Owns what jobs refer to: projects, repositories, templates, workers and work items.

Promises that what is created stays as it was created (but for a work item's state, which its jobs change), that all
that it names was there and of the same project, and that a repository's token is shown to nobody and logged nowhere.
"""
