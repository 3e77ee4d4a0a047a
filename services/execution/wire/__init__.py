"""Converts between the contract's messages and the service's own types, except what is an engine's own.

Everything that can be wrong with a request is refused here, all violations at once, before anything is done.
"""
