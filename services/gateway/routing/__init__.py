"""Serves a call on the cell that has what the call is about; `router` is the only place that forwards calls.

Promises that a caller of any gateway gets an answer or is told which cell does not answer, that a forwarded call is the
caller's own (the same request, the same principal), and that it is not forwarded again. Knows no RPC by name: what it
needs to know of one are options in the contract (`routing.proto`).
"""
