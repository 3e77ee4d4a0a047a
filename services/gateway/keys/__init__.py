"""Owns the keys that seal what is secret in the database.

Promises that a gateway which has not the database's key does not start, that a key is only used when every cell that
lives has it, and that a rotation ends with nothing left that the old key opens.
"""
