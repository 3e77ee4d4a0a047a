"""Authentication, authorization and audit: who is let in, what they may do, and what is recorded of it.

Promises that neither a request nor anything that it names is looked at before its caller is known to be allowed.
It asks the packages that own resources which project each belongs to, and knows none of their tables.
"""
