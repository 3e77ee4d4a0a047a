"""Owns the list of cells, and reports the state of the cells, the queue and the database.

Guarantees that a cell which sends heartbeats is known, and that one which has been gone for long is forgotten, which
ends the jobs that only it could run.
"""
