"""The tables of jobs, and of what belongs to them.

jobs        one row for each job: what it is, its state, and who holds it
stages      one row for each step of an attempt, with its result
executions  one row for each run: of the agent, once for each attempt; of checks and hooks
job_labels  one row for each label, to be searched; the job's spec has them too, to be shown
job_files   the files that it works on, apart from the jobs themselves, which are read far more often
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    false,
    literal_column,
)

from services.common.db.columns import Moment
from services.gateway.schema.metadata import metadata
from services.gateway.schema.sealing import SealedSecrets
from services.gateway.schema.sql import OptionalId
from services.lifecycle.model.states import JobState

LIVE = (JobState.PENDING, JobState.RUNNING, JobState.AWAITING_APPROVAL)
MAX_FILE_NAME_BYTES = 255


jobs = Table(
    "jobs",
    metadata,
    Column("job_id", String(63), primary_key=True),
    Column("project_id", String(63), ForeignKey("projects.project_id"), nullable=False),
    Column("kind", String(63), nullable=False),
    Column("worker_id", OptionalId, ForeignKey("workers.worker_id"), nullable=True),
    Column("work_item_id", OptionalId, ForeignKey("work_items.work_item_id"), nullable=True),
    Column("repository_id", OptionalId, ForeignKey("repositories.repository_id"), nullable=True),
    Column("template_id", String(63), nullable=False),  # no foreign key: SQLite cannot add one to an existing table
    Column("engine", String(31), nullable=False),
    # What claims compare with what cells allow. Empty: written by a version that did not say, and left to the node.
    Column("sandbox_tier", String(31), nullable=False, server_default=""),
    Column("network", String(31), nullable=False, server_default=""),
    Column("limits", Text, nullable=False, server_default=""),
    Column("preset", String(63), nullable=False, server_default=""),  # the agent's name, where the machine needs it
    Column("priority", Integer, nullable=False),
    Column("definition", Text, nullable=False),  # the lifecycle's JobSpec
    Column("secrets", SealedSecrets("jobs.secrets"), nullable=False, server_default=""),  # their names are in the spec
    Column("state", String(31), nullable=False),
    Column("reason", String(63), nullable=False),
    Column("message", Text, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("cancel_requested", Boolean, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("last_attempt", Integer, nullable=False),
    Column("execution_id", String(63), nullable=False),  # of the attempt's agent
    # What the attempt starts from in place of what the spec names; it is on the bound cell. Empty: as in the spec.
    Column("snapshot_id", String(63), nullable=False),
    Column("turn", BigInteger, nullable=False),  # its position in its project's queue: see `ledger.scheduling`
    # Nobody takes it before this time: the end of a delay, a retry's pause or a question. In microseconds, by the
    # database's clock.
    Column("wake_time", BigInteger, nullable=False),
    Column("bound_cell_id", String(63), nullable=False),  # the one cell that may take it; empty: any
    Column("waits_for_cell", Boolean, nullable=False, server_default=false()),  # and nowhere else can it begin
    # The lease. `held` is false while a cell that was restarted has not claimed its own job again.
    Column("fence", BigInteger, nullable=False),
    Column("cell_id", String(63), nullable=False),
    Column("held", Boolean, nullable=False),
    Column("lease_until", BigInteger, nullable=False),
    # The cells whose machines could not carry it, separated by spaces, and since when, in microseconds.
    Column("refused_by", Text, nullable=False, server_default=""),
    Column("refused_since", BigInteger, nullable=False, server_default="0"),
    # The provider of models whose outage it waits for, NULL for none; and since when, in microseconds.
    Column("outage_provider", Text, nullable=True),
    Column("outage_since", BigInteger, nullable=False, server_default="0"),
    Column("create_time", Moment, nullable=False),
    Column("start_time", Moment, nullable=True),
    Column("end_time", Moment, nullable=True),
)
# As text, not as bound values: a partial index is used only by statements with the same text as its condition.
PENDING = literal_column("'PENDING'", String)
RUNNING = literal_column("'RUNNING'", String)
AWAITING = literal_column("'AWAITING_APPROVAL'", String)
IS_QUEUED = jobs.c.state.in_((PENDING, AWAITING))
IS_RUNNING = jobs.c.state == RUNNING
IS_LIVE = jobs.c.state.in_((PENDING, AWAITING, RUNNING))

Index("jobs_queued", jobs.c.project_id, jobs.c.turn, jobs.c.job_id, postgresql_where=IS_QUEUED, sqlite_where=IS_QUEUED)
# The state is redundant here, but without it SQLite rates this index no better than one of all the project's jobs.
Index("jobs_running", jobs.c.project_id, jobs.c.state, postgresql_where=IS_RUNNING, sqlite_where=IS_RUNNING)
Index("jobs_ended", jobs.c.project_id, jobs.c.end_time)
Index("jobs_newest", jobs.c.create_time, jobs.c.job_id)
Index("jobs_live", jobs.c.create_time, jobs.c.job_id, postgresql_where=IS_LIVE, sqlite_where=IS_LIVE)
Index("jobs_last_ended", jobs.c.end_time)
for _column in (jobs.c.project_id, jobs.c.state, jobs.c.worker_id):  # what lists are filtered by
    Index(f"jobs_newest_of_{_column.name.removesuffix('_id')}", _column, jobs.c.create_time, jobs.c.job_id)
Index("jobs_of_work_item", jobs.c.work_item_id)

stages = Table(
    "stages",
    metadata,
    Column("job_id", String(63), ForeignKey("jobs.job_id"), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("name", String(63), primary_key=True),
    Column("number", Integer, nullable=False),  # the order in which they began
    Column("state", String(31), nullable=False),
    Column("result", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("start_time", Moment, nullable=False),
    Column("end_time", Moment, nullable=True),
)

executions = Table(
    "executions",
    metadata,
    Column("execution_id", String(63), primary_key=True),
    Column("job_id", String(63), ForeignKey("jobs.job_id"), nullable=False),
    Column("purpose", String(31), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("workspace_id", String(63), nullable=False),
    Column("cell_id", String(63), nullable=False),  # where it runs, or ran; empty until then
    Column("state", String(31), nullable=False),
    Column("reason", String(63), nullable=False),
    Column("message", Text, nullable=False),
    # The lifecycle's Output in two parts: what lists show, and what is large.
    Column("output", Text, nullable=False),
    Column("bulk", Text, nullable=False),
    Column("create_time", Moment, nullable=False),
    Column("start_time", Moment, nullable=True),
    Column("end_time", Moment, nullable=True),
)
Index("executions_newest", executions.c.create_time, executions.c.execution_id)
Index("executions_of_job", executions.c.job_id)
Index("executions_of_workspace", executions.c.workspace_id)

job_labels = Table(
    "job_labels",
    metadata,
    Column("job_id", String(63), ForeignKey("jobs.job_id", ondelete="CASCADE"), primary_key=True),
    Column("key", String(63), primary_key=True),
    Column("value", String(63), nullable=False),
)
Index("job_labels_by_value", job_labels.c.key, job_labels.c.value, job_labels.c.job_id)

job_files = Table(
    "job_files",
    metadata,
    Column("job_id", String(63), ForeignKey("jobs.job_id", ondelete="CASCADE"), primary_key=True),
    Column("name", String(MAX_FILE_NAME_BYTES), primary_key=True),
    Column("content", LargeBinary, nullable=False),
)
