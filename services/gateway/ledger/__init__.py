"""Owns what is written down of a job's life: who holds it, what it has come to, what it has asked and called.

Promises that every write is conditional on the lease under which it is made, that claims come one after another over
all cells, and that what is true is what the database's clock says. It implements the lifecycle's `Ledger`; what else is
in here works inside its caller's transaction.
"""
