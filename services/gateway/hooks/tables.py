"""The hooks' table. A column is named as the field that it keeps."""

from sqlalchemy import Boolean, Column, Enum, ForeignKey, Integer, Interval, String, Table, Text

from services.common.db.columns import Moment
from services.gateway.database import metadata
from services.gateway.hooks.model import FailurePolicy
from services.gateway.sql import JsonValue, OptionalId
from services.lifecycle.model.states import HookEvent

hooks = Table(
    "hooks",
    metadata,
    Column("hook_id", String(63), primary_key=True),
    Column("project_id", OptionalId, ForeignKey("projects.project_id"), nullable=True),
    Column("template_ids", JsonValue(tuple[str, ...]), nullable=False),
    Column("kinds", JsonValue(tuple[str, ...]), nullable=False),
    Column("stage", String(31), nullable=False),
    Column("disabled", Boolean, nullable=False),
    Column("event", Enum(HookEvent, native_enum=False, length=16), nullable=False),
    Column("command", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("secret", Text, nullable=False),  # in the clear, for every cell signs with it; see the repositories' token
    Column("is_callback", Boolean, nullable=False),
    Column("failure_policy", Enum(FailurePolicy, native_enum=False, length=16), nullable=False),
    Column("order", Integer, nullable=False),
    Column("timeout", Interval, nullable=False),
    Column("create_time", Moment, nullable=False),
    Column("remove_time", Moment, nullable=True),
)
