"""Between the contract's messages and the service's own words, for all that no engine has of its own.

Everything that a request can get wrong is refused here, all violations at once, before anything is done.
"""
