"""The tables of gates: what providers of models limit together, from when it is closed until it proves to be open.

model_gates       one row for each gate: of a provider, one of its keys, and a model; `scope` says for whose jobs
model_gate_turns  one row for each gate and project: who has gone through since it opened, and who waits
"""

from sqlalchemy import BigInteger, Boolean, Column, Integer, String, Table, Text

from services.gateway.schema.metadata import metadata


def _gate() -> tuple[Column[str], Column[str], Column[int], Column[str]]:
    return (
        Column("scope", String(80), primary_key=True),
        Column("provider", String(63), primary_key=True),
        Column("key", Integer, primary_key=True, autoincrement=False),
        Column("model", Text, primary_key=True),
    )


# Times are in microseconds, by the database's clock.
model_gates = Table(
    "model_gates",
    metadata,
    *_gate(),
    Column("open_time", BigInteger, nullable=False),
    Column("is_proven", Boolean, nullable=False),  # the request that has tried it was answered
    Column("next_time", BigInteger, nullable=False),  # when the next may go through
    Column("pause", BigInteger, nullable=False),  # between two that go through, ever shorter
    Column("trial_execution_id", String(63), nullable=False),  # the request that tries it; empty for none
    Column("trial_ask_id", String(63), nullable=False),
)

model_gate_turns = Table(
    "model_gate_turns",
    metadata,
    *_gate(),
    Column("project_id", String(63), primary_key=True),
    Column("passed", Integer, nullable=False),
    Column("waits_until", BigInteger, nullable=False),  # it is to look again before that
)
