"""The gateway's metrics of jobs: counters of what it writes, and gauges that it reads from the database on request.

Counters count what this gateway has written since its start, so that the total is the sum over cells. Gauges, and the
counters in `totals`, which the database has, are about all cells unless their help text says otherwise: each cell
reports the same value.
"""
