"""A model that plays a part: a local server of the Messages streaming protocol that plays conversations from files.

Demos and tests need neither a key nor a network with it, and are the same every time. It speaks the protocol over real
HTTP, so whoever talks to it does all that it would do with the API; faults are played on request. See `script` for the
files.
"""
