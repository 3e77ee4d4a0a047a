"""Owns the record of who did what.

Promises that every call that changes something, and every call that was refused, is recorded, without its secrets, and
that no call waits for its record or fails because of it. The contract says what is lost when a cell is killed.
"""
