"""The table of checkpoints.

EXPIRED is never written: a PENDING row whose time is over *is* expired, for whoever reads or answers it, by the
database's clock. So people see the true state, and no task has to update the row first.
"""

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, String, Table, Text

from services.common.db.columns import Moment
from services.gateway.schema.metadata import metadata

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("checkpoint_id", String(63), primary_key=True),
    Column("job_id", String(63), ForeignKey("jobs.job_id"), nullable=False),
    Column("project_id", String(63), nullable=False),
    Column("execution_id", String(63), nullable=False),
    Column("name", String(63), nullable=False),
    Column("origin", String(15), nullable=False),
    Column("question", Text, nullable=False),
    Column("round", Integer, nullable=False),
    Column("takes_changes", Boolean, nullable=False),
    Column("output", Text, nullable=False),  # the lifecycle's Output, without its large parts
    Column("state", String(31), nullable=False),
    Column("comment", Text, nullable=False),
    Column("decided_by", Text, nullable=False),
    Column("decided_peer", Text, nullable=False),
    Column("decided_via", Text, nullable=False),
    Column("create_time", Moment, nullable=False),
    Column("expire_time", Moment, nullable=False),
    Column("decide_time", Moment, nullable=True),
)
Index("checkpoints_newest", checkpoints.c.create_time, checkpoints.c.checkpoint_id)
Index("checkpoints_of_job", checkpoints.c.job_id)
Index("checkpoints_of_state", checkpoints.c.state, checkpoints.c.create_time)
