"""Owns jobs: admits them, keeps the ledger in which they are carried, and shows how they stand.

Promises that a job that was answered for is never lost and never doubled: admission, with the state of the work item,
is one transaction; a claim gives a job to one owner; and every later write is conditional on that owner's fence.
"""
