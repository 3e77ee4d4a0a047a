"""The `boatyard` command: for people at a terminal, and for scripts that read its JSON and exit codes.

A client like any other: it speaks to a gateway through the public stubs alone. `up` and `down` run the supervisor.
"""
