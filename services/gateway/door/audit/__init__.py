"""Owns the record of who did what.

Promises that every call that changes something, and every one that was refused, is recorded, without its secrets; that
no call waits for its record, or fails for it; and says, in the contract, what is lost when a cell is killed.
"""
