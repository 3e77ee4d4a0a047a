"""The git service's domain types, free of gRPC and SQL."""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from services.common.caveats import CaveatKind
from services.sandbox.spec import Tier


@dataclass(frozen=True, slots=True)
class Remote:
    """A repository elsewhere. The token is for one call only; `repr` leaves it out.

    `ca` are certificates (PEM) that vouch for its server, besides ours; `push_options` are for its server too.
    """

    repository_id: str
    url: str
    token: str = ""
    ca: str = ""
    push_options: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Remote({self.repository_id!r}, {self.url!r})"


@dataclass(frozen=True, slots=True)
class Signature:
    """Who made a commit, and when, in seconds since 1970. The caller gives it, so the same work is the same commit."""

    name: str
    email: str
    seconds: int


@dataclass(frozen=True, slots=True)
class Layers:
    """An overlay: `lowers` are read, topmost first, and `upper` holds the changes.

    `mounted_path` is where the workspace service has mounted it as root; None when each sandbox mounts it for itself.
    """

    lowers: tuple[Path, ...]
    upper: Path
    work: Path
    mounted_path: Path | None = None


@dataclass(frozen=True, slots=True)
class WorkingTree:
    """A tree that an agent may have written. Its repository borrows objects from `read_only_paths`.

    `path` is the tree itself, or the upper directory when its layers are not mounted.
    """

    path: Path
    read_only_paths: tuple[Path, ...] = ()
    tier: Tier = Tier.BUBBLEWRAP
    layers: Layers | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a long git command has got: the percentage of a phase, None when git does not know it."""

    phase: str
    percent: int | None = None


ProgressListener = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Caveat:
    """In what a base or a result differs from what it was made of: the first of the paths, and how many there are."""

    kind: CaveatKind
    paths: tuple[bytes, ...]
    total_paths: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Base:
    """A prepared tree, and the paths that a sandbox over it must show read-only, each at its own path.

    The `layers`, topmost first, together make the tree. Results are compared with `commit_id`; HEAD of a working tree
    begins at `head_commit_id`. Whoever uses the base leaves a file in `pins_path`.
    """

    commit_id: str
    layers: tuple[Path, ...]
    read_only_paths: tuple[Path, ...]
    branch: bytes
    pins_path: Path
    caveats: tuple[Caveat, ...] = ()
    head_commit_id: str = ""


@dataclass(frozen=True, slots=True)
class Head:
    """What HEAD of a tree is: a branch (empty when detached) and a commit (empty when there is none)."""

    branch: bytes
    commit_id: str


@dataclass(frozen=True, slots=True)
class SubmoduleLink:
    """A submodule that an agent moved to another commit, or path; `is_published`: its repository has that commit."""

    path: bytes
    commit_id: str
    is_published: bool


@dataclass(frozen=True, slots=True)
class TakeSpec:
    """What to take: the tree, the commit that it started from, and the signature of the commit that is added.

    `layered_on` is the commit whose tree lies below the tree's layers; empty when it is unknown or there are no layers.
    `leave_out` are patterns, as in a .gitignore file, of untracked files that nobody wants. `links` are the submodules
    that are not where the base has them. `head_commit_id` is where HEAD began, when that is not the commit below.
    With `git_lfs`, files that .gitattributes gives to Git LFS become pointers.
    """

    tree: WorkingTree
    base_commit_id: str
    message: str
    signature: Signature
    layered_on: str = ""
    leave_out: tuple[str, ...] = ()
    links: tuple[SubmoduleLink, ...] = ()
    head_commit_id: str = ""
    git_lfs: bool = False


@dataclass(frozen=True, slots=True)
class ResultCommit:
    """A working tree as a commit; it is the base itself when nothing has changed."""

    commit_id: str
    changed: bool
    agent_commits: int = 0
    caveats: tuple[Caveat, ...] = ()


@dataclass(frozen=True, slots=True)
class ResultRecord:
    """How long a result is kept at least, and the tree that it was taken from; None when the tree is unknown."""

    repository_id: str
    result_id: str
    tree: Path | None
    expire_time: datetime


@dataclass(frozen=True, slots=True)
class SnapshotSpec:
    """What to keep, under which id, and for how long; None means as long as the settings say."""

    snapshot_id: str
    repository_id: str
    tree: WorkingTree
    base_commit_id: str
    message: str
    keep_for: timedelta | None = None
    leave_out: tuple[str, ...] = ()
    git_lfs: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A working tree kept until a given time; the commit is the base itself when nothing had changed."""

    snapshot_id: str
    repository_id: str
    base_commit_id: str
    commit_id: str
    message: str
    create_time: datetime
    expire_time: datetime
    caveats: tuple[Caveat, ...] = ()


@dataclass(frozen=True, slots=True)
class StatusEntry:
    """One path whose state differs from HEAD, with git's letters; `.` means that a side is unchanged."""

    path: bytes
    index: str
    worktree: str
    old_path: bytes = b""


class ChangeKind(enum.Enum):
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
    change: ChangeKind
    old_path: bytes = b""
    additions: int | None = None
    deletions: int | None = None


@dataclass(frozen=True, slots=True)
class DiffEnd:
    """Follows the last piece of a diff: how many files the limit left out, and which commit was compared with."""

    omitted_files: int
    base_commit_id: str = ""


@dataclass(frozen=True, slots=True)
class CloneSpec:
    """A plain clone to make. An empty branch means the remote's default, depth 0 the whole history."""

    clone_id: str
    remote: Remote
    branch: bytes = b""
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Clone:
    """A plain clone and the commit checked out in it."""

    path: Path
    commit_id: str


@dataclass(frozen=True, slots=True)
class CloneUsage:
    """A plain clone and its size."""

    clone_id: str
    path: Path
    bytes: int


@dataclass(frozen=True, slots=True)
class StartPoint:
    """What to start from: a revision of the remote (empty: its default branch), a result's commit, or a snapshot.

    With `git_lfs` its files of Git LFS have their contents, where those can be had.
    """

    revision: bytes = b""
    result_commit_id: str = ""
    snapshot_id: str = ""
    git_lfs: bool = False


@dataclass(frozen=True, slots=True)
class TreeOrigin:
    """What a working tree began as, and which untracked files in it nobody wants: patterns as in a .gitignore file."""

    repository_id: str
    commit_id: str
    leave_out: tuple[str, ...] = ()


class OmissionReason(enum.Enum):
    """Why a file is no artifact."""

    NO_SUCH_FILE = "no-such-file"
    TOO_LARGE = "too-large"
    TOO_MANY = "too-many"
    UNREADABLE = "unreadable"
    NOT_A_FILE = "not-a-file"
    UNUSABLE_NAME = "unusable-name"


@dataclass(frozen=True, slots=True, order=True)
class Artifact:
    """A file that is kept: its path from the top of its tree, without secrets, and the size and hash of its content."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class OmittedArtifact:
    """A file that is not kept, or a pattern that names none."""

    name: str
    reason: OmissionReason


@dataclass(frozen=True, slots=True)
class TakenArtifacts:
    """What was kept of a tree, and what was not, each ordered by name."""

    artifacts: tuple[Artifact, ...]
    omitted: tuple[OmittedArtifact, ...] = ()


@dataclass(frozen=True, slots=True)
class ArtifactLimits:
    """The most that is kept of one tree: files, and their bytes together."""

    files: int = 1000
    bytes: int = 1 << 30
