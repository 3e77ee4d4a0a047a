"""The catalogue's tables. A column has the name of the field that it stores, so that rows and values match by name.

An optional reference is NULL in the table, because foreign keys allow that, and empty in the value, as people write it.
"""

from collections.abc import Mapping

from sqlalchemy import Boolean, Column, Enum, ForeignKey, Index, Integer, LargeBinary, String, Table, Text, false

from services.agent.providers import ModelWire
from services.agent.stored import StoredAgentSettings
from services.common.db.columns import Moment
from services.gateway.schema.metadata import metadata
from services.gateway.schema.sealing import SealedSecrets, SealedText, SealedTexts
from services.gateway.schema.sql import JsonValue, OptionalId
from services.gateway.values.catalog import Document, WorkItemState
from services.lifecycle.model.floor import Floor
from services.lifecycle.model.policy import Policy


def _key(name: str) -> Column[str]:
    return Column(name, String(63), primary_key=True)


def _project() -> Column[str]:
    return Column("project_id", String(63), ForeignKey("projects.project_id"), nullable=False)


def _limit() -> Column[int]:
    """Return the column for how many of its jobs may run at once; 0 means no limit."""
    return Column("max_running_jobs", Integer, nullable=False)


def _secrets(table: str) -> Column[Mapping[str, str]]:
    """Return the column for the values of a resource's secrets, apart from the settings that have their names."""
    return Column("secrets", SealedSecrets(f"{table}.secrets"), nullable=False, server_default="")


def _floor() -> Column[object]:
    """Return the column for what all jobs must keep to."""
    return Column("floor", JsonValue(Floor), nullable=False, server_default="{}")


def _times() -> tuple[Column[object], Column[object]]:
    """Return the columns for the times of creation and deletion. A deleted row stays, for jobs that refer to its id."""
    return Column("create_time", Moment, nullable=False), Column("delete_time", Moment, nullable=True)


projects = Table(
    "projects",
    metadata,
    _key("project_id"),
    Column("display_name", Text, nullable=False),
    _limit(),
    Column("default_worker_id", OptionalId, nullable=True),  # no foreign key: workers have one to projects
    _secrets("projects"),
    _floor(),
    Column("todo_only", Boolean, nullable=False, server_default=false()),
    *_times(),
)

repositories = Table(
    "repositories",
    metadata,
    _key("repository_id"),
    _project(),
    Column("url", Text, nullable=False),
    Column("default_revision", LargeBinary, nullable=False),
    Column("token", SealedText("repositories.token"), nullable=False),
    _limit(),
    Column("ca", Text, nullable=False, server_default=""),
    Column("push_options", JsonValue(tuple[str, ...]), nullable=False, server_default="[]"),
    *_times(),
)

providers = Table(
    "providers",
    metadata,
    _key("provider_id"),
    Column("project_id", OptionalId, ForeignKey("projects.project_id"), nullable=True),
    Column("wire", Enum(ModelWire, native_enum=False, length=16), nullable=False),
    Column("base_url", Text, nullable=False),
    Column("keys", SealedTexts("providers.keys"), nullable=False),
    Column("aliases", JsonValue(dict[str, str]), nullable=False),
    Column("models", JsonValue(tuple[str, ...]), nullable=False),
    Column("project_header", Text, nullable=False),
    Column("ca", Text, nullable=False),
    Column("order", Integer, nullable=False),
    Column("disabled", Boolean, nullable=False),
    Column("for_coordinators", Boolean, nullable=False),
    *_times(),
)

templates = Table(
    "templates",
    metadata,
    _key("template_id"),
    _project(),
    Column("display_name", Text, nullable=False),
    Column("agent", JsonValue(StoredAgentSettings), nullable=False),
    Column("policy", JsonValue(Policy[None]), nullable=False),
    _secrets("templates"),
    _floor(),
    *_times(),
)

workers = Table(
    "workers",
    metadata,
    _key("worker_id"),
    _project(),
    Column("display_name", Text, nullable=False),
    Column("template_id", OptionalId, ForeignKey("templates.template_id"), nullable=True),
    Column("agent", JsonValue(StoredAgentSettings), nullable=False),
    Column("policy", JsonValue(Policy[None]), nullable=False),
    _secrets("workers"),
    _limit(),
    *_times(),
)

work_items = Table(
    "work_items",
    metadata,
    _key("work_item_id"),
    _project(),
    Column("title", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("notes", JsonValue(tuple[str, ...]), nullable=False),
    Column("related_work_item_ids", JsonValue(tuple[str, ...]), nullable=False),
    Column("repository_id", OptionalId, ForeignKey("repositories.repository_id"), nullable=True),
    Column("documents", JsonValue(tuple[Document, ...]), nullable=False),
    Column("worker_id", OptionalId, ForeignKey("workers.worker_id"), nullable=True),
    Column("template_id", OptionalId, ForeignKey("templates.template_id"), nullable=True),
    Column("state", Enum(WorkItemState, native_enum=False, length=16), nullable=False),
    Column("agent", JsonValue(StoredAgentSettings), nullable=False, server_default="{}"),
    Column("policy", JsonValue(Policy[None]), nullable=False, server_default="{}"),
    _secrets("work_items"),
    *_times(),
)

Index("repositories_url", repositories.c.url)
for _table in (projects, repositories, templates, workers, work_items):
    _id = _table.primary_key.columns[0]
    Index(f"{_table.name}_newest", _table.c.create_time, _id)
    if _table is not projects:
        Index(f"{_table.name}_newest_of_project", _table.c.project_id, _table.c.create_time, _id)
