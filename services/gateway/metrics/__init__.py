"""The gateway's metrics of jobs: counters of what it writes, and gauges that it reads from the database on request.

Counters count what this gateway has written since its start, so that the total is the sum over cells. Gauges, unless
their help text says otherwise, are about all cells: each cell reports the same value.
"""
