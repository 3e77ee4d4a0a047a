"""The only package that reaches what lives on a cell: executions, workspaces and snapshots.

A cell is asked in the messages of the public API, through a `CellClient`: this cell's node services, another cell's
gateway, or, for a coordinator's machine, what it has sent. Promises that a caller of any gateway gets an answer or is
told which cell does not answer, and that a call that one gateway has forwarded to another is not forwarded again.
"""
