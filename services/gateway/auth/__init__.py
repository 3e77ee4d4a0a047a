"""Owns who may call the gateway, and what they may do: roles, the projects that they see, and where calls come from.

Promises that nothing of a request is looked at, and nothing of what it names, before its caller is known to be allowed.
"""
