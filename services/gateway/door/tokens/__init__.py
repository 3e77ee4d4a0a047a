"""Owns the tokens by which callers are let in, and the RPCs that make and revoke them.

Promises that a token's secret is stored nowhere, and that a revoked token is refused everywhere after a few seconds.
"""
