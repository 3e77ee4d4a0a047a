"""Owns the record of a job's life: who holds it, its state and stages, its questions and its calls of hooks.

Promises that every write is conditional on the lease under which it is made, that claims come one after another over
all cells, and that all times are by the database's clock. It implements the lifecycle's `Ledger`; everything else here
works inside its caller's transaction.
"""
