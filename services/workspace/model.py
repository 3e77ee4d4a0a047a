"""The values of a workspace."""

import enum
import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path


class State(enum.StrEnum):
    """The state of a workspace; the names are the contract's, without prefix."""

    ACTIVE = "ACTIVE"
    COMPLETED = "COMPLETED"
    ERROR = "ERROR"
    CLEANING = "CLEANING"


SETTABLE_STATES = (State.COMPLETED, State.ERROR)
"""The states that UpdateWorkspaceState may set; the others come from making and removing."""


@dataclass(frozen=True, slots=True)
class Labels:
    """What a workspace is for: recorded for lists and people, never interpreted here."""

    project_id: str = ""
    job_id: str = ""
    worker_id: str = ""
    work_item_id: str = ""
    repository_id: str = ""
    branch: bytes = b""


class Visibility(enum.Enum):
    """Who must be able to see the files."""

    SANDBOXES = "sandboxes"
    HOST = "host"


class Home(enum.Enum):
    """The HOME of the agents who work in a workspace: a new one, or that of their job's workspace before."""

    NEW = "new"
    OF_JOB = "of job"


@dataclass(frozen=True, slots=True)
class File:
    """A file that is to be in a workspace; `path` is relative to its top."""

    path: Path
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class NewWorkspace:
    """A request for a workspace. Requests with the same id that differ in any field are different requests.

    `base_layers`, the topmost first, are what the workspace starts with; without any it is empty. `pins_path` is the
    directory in which the owner of the base looks for its users. `home` is no part of what tells requests from each
    other: the version before asked for none, and its job goes on without. Above `max_home_bytes` (0: what the settings
    say) a HOME is not taken over.
    """

    workspace_id: str
    base_layers: tuple[Path, ...] = ()
    labels: Labels = Labels()
    pins_path: Path | None = None
    visibility: Visibility = Visibility.SANDBOXES
    files: tuple[File, ...] = ()
    home: Home | None = None
    max_home_bytes: int = 0

    @property
    def files_digest(self) -> str:
        """Return a digest of its files; empty without any."""
        if not self.files:
            return ""
        digest = hashlib.sha256()
        for file in self.files:
            for part in (bytes(file.path), file.content):
                digest.update(len(part).to_bytes(8) + part)
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Layout:
    """Where files are: at one path, or in layers, which are stacked at `mounted` or (None) by each sandbox."""

    path: Path | None
    lowers: tuple[Path, ...] = ()
    upper: Path | None = None
    work: Path | None = None
    mounted: Path | None = None

    @property
    def files(self) -> Path | None:
        """The directory of the files: of all, or of the changed ones alone where no place shows all of them."""
        return self.path or self.mounted or self.upper


@dataclass(frozen=True, slots=True)
class Workspace:
    """The record of one workspace. Times are in UTC.

    `expire_time` is None when none was given, `complete_time` while the work goes on. `home_workspace_id` is where its
    HOME was taken over from; empty for a new one, and without one.
    """

    workspace_id: str
    state: State
    driver: str
    base_layers: tuple[Path, ...]
    pins_path: Path | None
    visibility: Visibility
    labels: Labels
    create_time: datetime
    update_time: datetime
    expire_time: datetime | None = None
    complete_time: datetime | None = None
    files_digest: str = ""
    home_workspace_id: str = ""

    def was_asked_for_by(self, request: NewWorkspace) -> bool:
        """True when `request` is the one that this workspace was made for."""
        mine = (self.base_layers, self.pins_path, self.visibility, self.labels, self.files_digest)
        theirs = (request.base_layers, request.pins_path, request.visibility, request.labels, request.files_digest)
        return mine == theirs


@dataclass(frozen=True, slots=True)
class WorkspaceView:
    """A workspace with what is not recorded but looked up: where it is, and who holds it (empty for nobody)."""

    workspace: Workspace
    layout: Layout
    held_by: str
    home: Path | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which workspaces to list; an empty field matches all."""

    states: frozenset[State] = field(default_factory=frozenset)
    project_id: str = ""
    job_id: str = ""
    worker_id: str = ""
    work_item_id: str = ""
