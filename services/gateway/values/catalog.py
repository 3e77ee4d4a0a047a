"""What the catalogue keeps. Times are in UTC; an empty text means that there is none, and so does a limit of 0."""

import enum
from dataclasses import dataclass, field
from datetime import datetime

from services.gateway.values.agent import AgentSettings, JobPolicySettings

DEFAULT_PROJECT_ID = "default"


class WorkItemState(enum.StrEnum):
    """Where a work item stands; the names are those of the contract, without prefix."""

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
    create_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A git remote. `token` is for the git service alone: it stands in no message and in no text of this object."""

    repository_id: str
    project_id: str
    url: str
    default_revision: bytes = b""
    token: str = field(default="", repr=False)
    max_running_jobs: int = 0
    create_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A kind of agent."""

    template_id: str
    project_id: str
    display_name: str = ""
    agent: AgentSettings = field(default_factory=AgentSettings)
    policy: JobPolicySettings = field(default_factory=JobPolicySettings)
    create_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A named agent. `agent` and `policy` lie over those of the template, if there is one."""

    worker_id: str
    project_id: str
    display_name: str
    template_id: str = ""
    agent: AgentSettings = field(default_factory=AgentSettings)
    policy: JobPolicySettings = field(default_factory=JobPolicySettings)
    max_running_jobs: int = 0
    create_time: datetime


@dataclass(frozen=True, slots=True)
class Document:
    """A named text that goes with a work item."""

    name: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkItem:
    """What is to be done."""

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
    state: WorkItemState = WorkItemState.TODO
    create_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogFilter:
    """Which things to list; what is empty does not narrow. `url` and `states` are for kinds that have them."""

    project_id: str = ""
    url: str = ""
    states: frozenset[WorkItemState] = frozenset()
