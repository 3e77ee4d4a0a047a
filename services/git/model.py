"""What the git service talks about, without a word of gRPC or SQL."""

import enum
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from services.sandbox.spec import Tier


@dataclass(frozen=True, slots=True)
class Remote:
    """A repository elsewhere. The token is for one call; it is not part of what is printed."""

    repository_id: str
    url: str
    token: str = ""

    def __repr__(self) -> str:
        return f"Remote({self.repository_id!r}, {self.url!r})"


@dataclass(frozen=True, slots=True)
class Signature:
    """Who made a commit, and when, in seconds since 1970. Given from outside: the same work is the same commit."""

    name: str
    email: str
    seconds: int


@dataclass(frozen=True, slots=True)
class Layers:
    """An overlay: `lowers` are read, the topmost first, and `upper` has taken the changes.

    `mounted_path` is where the workspace service has mounted them, as root; None where each sandbox does for itself.
    """

    lowers: tuple[Path, ...]
    upper: Path
    work: Path
    mounted_path: Path | None = None


@dataclass(frozen=True, slots=True)
class WorkingTree:
    """A tree that an agent may have written. `read_only_paths` are what its repository borrows objects from.

    `path` is the tree itself, or the upper directory of layers that nobody has mounted.
    """

    path: Path
    read_only_paths: tuple[Path, ...] = ()
    tier: Tier = Tier.BUBBLEWRAP
    layers: Layers | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a long git command is: percent of a phase, None when git does not know."""

    phase: str
    percent: int | None = None


class NoteKind(enum.Enum):
    """What a base does not hold."""

    SUBMODULES = "submodules"
    LFS_POINTERS = "lfs-pointers"


@dataclass(frozen=True, slots=True)
class Note:
    """Something that a base does not hold: the first paths of it, and how many there are."""

    kind: NoteKind
    paths: tuple[bytes, ...]
    total: int


@dataclass(frozen=True, slots=True)
class Base:
    """A prepared tree of one commit, and what a sandbox over it must show read-only at the same place.

    `layers` together are the tree, the topmost first. `pins_path` is where whoever uses it says so.
    """

    commit_id: str
    layers: tuple[Path, ...]
    read_only_paths: tuple[Path, ...]
    branch: bytes
    pins_path: Path
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class Head:
    """Where a tree is: a branch (empty when detached) at a commit (empty when it has none)."""

    branch: bytes
    commit_id: str


@dataclass(frozen=True, slots=True)
class Result:
    """A working tree as a commit: the base itself when nothing has changed."""

    commit_id: str
    changed: bool
    agent_commits: int = 0
    lost_repositories: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Kept:
    """Until when a result is kept at least, and the tree that it was taken of; None where that is not known."""

    repository_id: str
    result_id: str
    tree: Path | None
    expire_time: datetime


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A working tree that was kept until a time; the commit is the base itself when nothing had changed."""

    snapshot_id: str
    repository_id: str
    base_commit_id: str
    commit_id: str
    message: str
    create_time: datetime
    expire_time: datetime


@dataclass(frozen=True, slots=True)
class StatusEntry:
    """One path whose state is not HEAD's, with git's letters; `.` when a side is unchanged."""

    path: bytes
    index: str
    worktree: str
    old_path: bytes = b""


class Change(enum.Enum):
    """What happened to a file between two commits."""

    ADDED = "A"
    MODIFIED = "M"
    DELETED = "D"
    RENAMED = "R"
    TYPE = "T"


@dataclass(frozen=True, slots=True)
class ChangedFile:
    """One file that differs between two commits; the line counts are None for a binary file."""

    path: bytes
    change: Change
    old_path: bytes = b""
    additions: int | None = None
    deletions: int | None = None


@dataclass(frozen=True, slots=True)
class DiffEnd:
    """Comes after the pieces of a diff: how many files were left out for the limit, and what was compared with."""

    omitted_files: int
    base_commit_id: str = ""


@dataclass(frozen=True, slots=True)
class CloneOrder:
    """A plain clone to make: the branch empty for the remote's default, depth 0 for all of the history."""

    clone_id: str
    remote: Remote
    branch: bytes = b""
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Clone:
    """A plain clone, and the commit that is checked out in it."""

    path: Path
    commit_id: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which commit to start from: a revision of the remote (empty: its default), or the id of a result."""

    revision: bytes = b""
    result_commit_id: str = ""
