"""Owns the hooks, which are called in the life of a job, and the history of their calls.

Guarantees the order in which hooks are called, that no job which is claimed later calls a removed or disabled hook, and
one record for each call, however often the call was tried or begun again.
"""
