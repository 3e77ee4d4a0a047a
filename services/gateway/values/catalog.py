"""The catalogue's values. Times are in UTC. An empty text means that there is none, and 0 that there is no limit."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from services.agent.providers import ModelProvider, ModelWire
from services.agent.settings import AgentSettings
from services.lifecycle.model.floor import NO_FLOOR, Floor
from services.lifecycle.model.policy import Policy

DEFAULT_PROJECT_ID = "default"


class WorkItemState(enum.StrEnum):
    """The state of a work item. The names are those of the contract, without prefix."""

    TODO = "TODO"
    IN_PROGRESS = "IN_PROGRESS"
    REVIEW = "REVIEW"
    DONE = "DONE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """The namespace of everything else."""

    project_id: str
    display_name: str = ""
    max_running_jobs: int = 0
    default_worker_id: str = ""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    floor: Floor = NO_FLOOR
    todo_only: bool = False
    create_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A git remote. `token`, for ssh a private key, is for the git service only: it is in no message, nor in a repr."""

    repository_id: str
    project_id: str
    url: str
    default_revision: bytes = b""
    token: str = field(default="", repr=False)
    max_running_jobs: int = 0
    ca: str = ""
    push_options: tuple[str, ...] = ()
    create_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """Who answers what agents ask of a model. Without a project it is for all of them."""

    provider_id: str
    project_id: str = ""
    wire: ModelWire
    base_url: str
    keys: tuple[str, ...] = field(default=(), repr=False)
    aliases: Mapping[str, str] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    project_header: str = ""
    ca: str = ""
    order: int = 0
    disabled: bool = False
    for_coordinators: bool = False
    create_time: datetime

    def to_agent(self) -> ModelProvider:
        """Return it as an agent has it."""
        return ModelProvider(
            name=self.provider_id,
            wire=self.wire,
            base_url=self.base_url,
            keys=self.keys,
            aliases=self.aliases,
            models=self.models,
            project_header=self.project_header,
            ca=self.ca,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A kind of agent."""

    template_id: str
    project_id: str
    display_name: str = ""
    agent: AgentSettings = field(default_factory=AgentSettings)
    policy: Policy[None] = field(default_factory=Policy)
    floor: Floor = NO_FLOOR
    create_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A named agent. `agent` and `policy` are laid over those of the template, if there is one."""

    worker_id: str
    project_id: str
    display_name: str
    template_id: str = ""
    agent: AgentSettings = field(default_factory=AgentSettings)
    policy: Policy[None] = field(default_factory=Policy)
    max_running_jobs: int = 0
    create_time: datetime


@dataclass(frozen=True, slots=True)
class Document:
    """A named text that belongs to a work item."""

    name: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkItem:
    """What is to be done. For its jobs, `agent` and `policy` are laid over those of the worker and the template."""

    work_item_id: str
    project_id: str
    title: str
    description: str = ""
    notes: tuple[str, ...] = ()
    related_work_item_ids: tuple[str, ...] = ()
    repository_id: str = ""
    documents: tuple[Document, ...] = ()
    worker_id: str = ""
    template_id: str = ""
    agent: AgentSettings = field(default_factory=AgentSettings)
    policy: Policy[None] = field(default_factory=Policy)
    state: WorkItemState = WorkItemState.TODO
    create_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogFilter:
    """Which resources to list; empty fields do not filter. `url` and `states` are for the types that have them."""

    project_id: str = ""
    url: str = ""
    states: frozenset[WorkItemState] = frozenset()
