"""Owns which cells there are, and what they and the database say of themselves.

Promises that a cell which beats is known, and that one which is gone for long is forgotten, with an end for the jobs
that could run on it alone.
"""
