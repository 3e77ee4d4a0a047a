"""Owns the tokens by which callers are let in, and the RPCs that make and revoke them.

Promises that a token's secret is kept nowhere, and that a token which is revoked opens nothing a few seconds later.
"""
