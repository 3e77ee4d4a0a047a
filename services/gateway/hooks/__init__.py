"""Owns what is to be called in the life of a job.

Promises the order in which hooks are called, and that a removed one is called by no job that is taken later.
"""
