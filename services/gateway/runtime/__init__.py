"""Starts and shows executions: their events, diffs and workspaces.

Promises that a viewer gets every event once and in order, whatever is restarted between the node and the viewer, and
that a viewer that stalls costs no more memory than what is in flight.
"""
