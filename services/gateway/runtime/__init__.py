"""Shows what agents do, and has them do it: executions, their events, diffs and workspaces.

Promises that a viewer gets every event once and in order, whatever is restarted between the node and the viewer, and
that one that stalls costs no more than what is in flight.
"""
