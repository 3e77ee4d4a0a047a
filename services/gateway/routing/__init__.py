"""The one place where what lives on a cell is reached: executions, workspaces and snapshots.

A cell is asked in the words of the public API, by a `CellClient`: this cell's node services, another cell's gateway,
or, for a coordinator's machine, what it has sent. Promises that whoever asks any gateway is answered, or told which
cell does not answer, and that a call that one gateway has passed on to another is passed on no further.
"""
