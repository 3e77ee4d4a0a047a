"""Owns who is let in, to what, and what is recorded of it.

Promises that nothing of a request is looked at, and nothing of what it names, before its caller is known to be allowed.
Whose a thing is it asks the packages that own things; it knows none of their tables.
"""
