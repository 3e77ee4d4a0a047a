"""Owns jobs as callers know them: takes them in, shows how they stand, has them end or be tried again, forgets the old.

Promises that a job that was answered for is never lost and never doubled: its admission, with the state of its work
item, is one transaction. Who carries it, and what comes of it, is written in the ledger.
"""
