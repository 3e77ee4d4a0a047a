"""Owns what is to be called in the life of a job, and what was.

Promises the order in which hooks are called, that a removed or disabled one is called by no job that is taken later,
and one record a call, however often the call was tried, or begun again.
"""
