"""The tables of hooks and of their calls. A column has the name of the field that it stores."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Enum,
    ForeignKey,
    Index,
    Integer,
    Interval,
    String,
    Table,
    Text,
    false,
)

from services.common.db.columns import Moment
from services.gateway.schema.metadata import metadata
from services.gateway.schema.sealing import SealedText
from services.gateway.schema.sql import JsonValue, OptionalId
from services.gateway.values.hooks import FailurePolicy
from services.lifecycle.model.hook_calls import CallState
from services.lifecycle.model.states import HookEvent

hook_calls = Table(
    "hook_calls",
    metadata,
    Column("call_id", String(127), primary_key=True),
    Column("hook_id", String(63), nullable=False),
    Column("job_id", String(63), ForeignKey("jobs.job_id", ondelete="CASCADE"), nullable=False),
    Column("project_id", String(63), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("event", Enum(HookEvent, native_enum=False, length=16), nullable=False),
    Column("stage", String(31), nullable=False),
    Column("state", Enum(CallState, native_enum=False, length=16), nullable=False),
    Column("fence", BigInteger, nullable=False),  # of the lease under which it was last begun
    Column("begun", Integer, nullable=False),  # under how many leases it was begun
    Column("tries", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("answer", Text, nullable=False),
    Column("start_time", Moment, nullable=False),
    Column("end_time", Moment, nullable=True),
)
Index("hook_calls_newest", hook_calls.c.start_time, hook_calls.c.call_id)
Index("hook_calls_of_hook", hook_calls.c.hook_id, hook_calls.c.start_time)
Index("hook_calls_of_job", hook_calls.c.job_id)

hooks = Table(
    "hooks",
    metadata,
    Column("hook_id", String(63), primary_key=True),
    Column("project_id", OptionalId, ForeignKey("projects.project_id"), nullable=True),
    Column("template_ids", JsonValue(tuple[str, ...]), nullable=False),
    Column("kinds", JsonValue(tuple[str, ...]), nullable=False),
    Column("stage", String(31), nullable=False),
    Column("disabled", Boolean, nullable=False),
    Column("on_cancel", Boolean, nullable=False, server_default=false()),
    Column("event", Enum(HookEvent, native_enum=False, length=16), nullable=False),
    Column("command", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("secret", SealedText("hooks.secret"), nullable=False),
    Column("is_callback", Boolean, nullable=False),
    Column("failure_policy", Enum(FailurePolicy, native_enum=False, length=16), nullable=False),
    Column("order", Integer, nullable=False),
    Column("timeout", Interval, nullable=False),
    Column("create_time", Moment, nullable=False),
    Column("remove_time", Moment, nullable=True),
)
