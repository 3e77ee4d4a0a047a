"""Owns jobs as callers know them: admits them, shows their state, ends or retries them on request, removes old ones.

Promises that a job that was answered for is never lost and never doubled: its admission, with the state of its work
item, is one transaction. Who runs it, and with what result, is recorded in the ledger.
"""
