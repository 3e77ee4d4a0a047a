"""A replayed model: a local server of the Messages streaming protocol that plays conversations from files.

With it demos and tests need neither a key nor a network, and are the same every time. It speaks the protocol over real
HTTP, so its clients do everything that they do with the API; faults are played on request. See `script` for the files.
"""
