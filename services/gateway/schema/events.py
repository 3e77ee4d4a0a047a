"""Events of executions that run on coordinators' machines, from where viewers cannot get them.

event_logs     one row for each execution: which of its events are held
event_batches  its events, in the batches in which they came
"""

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, LargeBinary, String, Table

from services.gateway.schema.metadata import metadata

event_logs = Table(
    "event_logs",
    metadata,
    Column("execution_id", String(63), ForeignKey("executions.execution_id"), primary_key=True),
    Column("first_sequence", BigInteger, nullable=False),
    Column("next_sequence", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),  # bytes, of all batches
    Column("is_complete", Boolean, nullable=False),
)

event_batches = Table(
    "event_batches",
    metadata,
    Column("execution_id", String(63), ForeignKey("executions.execution_id"), primary_key=True),
    Column("next_sequence", BigInteger, primary_key=True),  # one more than its last event's
    Column("size", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
)
