"""The table of totals: what counters of jobs and checkpoints count beyond the rows that are there now.

A row that is removed, or a job that begins again after it has ended, is added here in the same transaction. So counters
are the sum of rows and totals, and neither restarts nor retention take anything away from them.
"""

from sqlalchemy import BigInteger, Column, Index, Integer, String, Table

from services.gateway.schema.jobs import jobs
from services.gateway.schema.metadata import metadata

totals = Table(
    "totals",
    metadata,
    Column("series", String(31), primary_key=True),  # jobs, durations or checkpoints
    Column("status", String(31), primary_key=True),
    Column("at_most_seconds", Integer, primary_key=True),  # of a duration: its bucket's bound, -1 for none; else 0
    Column("number", BigInteger, nullable=False),
    Column("microseconds", BigInteger, nullable=False),  # of durations: their sum
)

_HAS_ENDED = jobs.c.end_time.is_not(None)
Index(
    "jobs_durations",
    jobs.c.state,
    jobs.c.start_time,
    jobs.c.end_time,
    postgresql_where=_HAS_ENDED,
    sqlite_where=_HAS_ENDED,
)
