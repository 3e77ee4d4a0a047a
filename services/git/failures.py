"""What a failed git command means to the caller: errors with reasons."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.common.errors import AlreadyExists, Exhausted, FailedPrecondition, NotFound, ServiceError
from services.common.room import DISK_FULL, has_no_room, tells_of_no_room
from services.common.text import lossy
from services.git.gitcmd import FileTooLarge, GitError, GitOutOfMemory, OutputTooLarge
from services.git.refusals import SAID_BY_REMOTE, refusal
from services.sandbox.errors import HeldError, NotMountedError, SandboxUnavailableError

# A remote speaks of its own disk, and not of this machine's.
_REMOTES_WORDS = re.compile(rf"^{SAID_BY_REMOTE}.*", re.MULTILINE)
# Of some files git does not say why it could not write them, as when a ref is locked.
_NOT_WRITTEN = re.compile(r"(could not|couldn't|unable to|failed to|cannot) (write|create|lock|close|update)")
# What the far side of a remote on this machine says when its sandbox does not start.
_NO_SANDBOX = re.compile(r"^(git \S+ failed with code \d+: )?bwrap: ", re.MULTILINE)


def far_side_unavailable(error: Exception) -> ServiceError:
    """A remote on this machine is served in a sandbox, and there is none."""
    message = (
        f"a remote on this machine is served in a sandbox, which does not start: {error}\n`boatyard doctor --sandbox`"
        " says why. Where there can be none, BOATYARD_GIT_SANDBOX_FILE_REMOTES=false serves it without"
    )
    return FailedPrecondition("SANDBOX_UNAVAILABLE", message, "sandbox")


def clone_failed(repository_id: str, error: GitError, most_bytes: int = 0) -> ServiceError:
    """The repository could not be fetched, for a reason of refusals.py's. A fetch may bring `most_bytes` if it fits."""
    if isinstance(error, FileTooLarge) and error.limit < most_bytes:
        return disk_full(f"the remote sends more than the {error.limit >> 20} MiB for which there is room: {error}")
    if isinstance(error, FileTooLarge | GitOutOfMemory | OutputTooLarge):
        return remote_too_large(repository_id, error)
    return _refused("the repository cannot be fetched", "CLONE_FAILED", repository_id, error)


def _refused(what: str, otherwise: str, subject: str, error: Exception) -> ServiceError:
    """Return the error of a command that spoke to a remote, by what the remote or git say."""
    if _NO_SANDBOX.search(str(error)):
        return far_side_unavailable(error)
    if full := _disk_full(error):
        return full
    row = refusal(error)
    if row is None:
        return FailedPrecondition(otherwise, f"{what}: {error}", subject)
    return FailedPrecondition(row.reason, f"{what}: {error}{row.hint}", subject)


def remote_too_large(repository_id: str, error: GitError) -> ServiceError:
    """The remote sends more, or makes git need more, than a fetch may take."""
    setting = "BOATYARD_GIT_FETCH_MEMORY_BYTES" if isinstance(error, GitOutOfMemory) else "BOATYARD_GIT_FETCH_MAX_BYTES"
    message = f"the remote is too large for one fetch, or means harm; if it is not, raise {setting}: {error}"
    return FailedPrecondition("REMOTE_TOO_LARGE", message, repository_id)


def take_failed(result_id: str, error: Exception, written: Path | None = None) -> ServiceError:
    """The agent's work could not be taken; `written` is on the disk that git was to write to."""
    return _disk_full(error, written) or FailedPrecondition(
        "TAKE_FAILED", f"the working tree cannot be taken: {error}", result_id
    )


def result_too_large(result_id: str, error: Exception) -> ServiceError:
    """A working tree has more to read, or makes a larger pack, than a result may."""
    return FailedPrecondition(
        "RESULT_TOO_LARGE", f"what is in the working tree is too large to be kept: {error}", result_id
    )


def push_rejected(branch: bytes, error: Exception) -> ServiceError:
    """The remote refused the push."""
    return FailedPrecondition("PUSH_REJECTED", f"the push was refused: {error}", lossy(branch))


def push_failed(branch: bytes, error: Exception) -> ServiceError:
    """The push did not reach the remote, or not whole, for a reason of refusals.py's; or the remote refused it."""
    return _refused("the push has failed", "PUSH_REJECTED", lossy(branch), error)


def branch_exists(branch: bytes, commit_id: str) -> ServiceError:
    """There is such a branch, at another commit than it may be."""
    name = lossy(branch)
    message = f"the branch {name} is there already, at {commit_id}"
    return AlreadyExists("branch", name, reason="BRANCH_EXISTS", message=message)


def branch_in_the_way(branch: bytes, other: bytes) -> ServiceError:
    """The remote cannot have both branches, as one of the names is a directory of the other."""
    message = f"the remote's branch {lossy(other)} is in the way of {lossy(branch)}: no server can have both"
    return FailedPrecondition("BRANCH_IN_THE_WAY", message, lossy(branch))


def not_a_repository(path: str, error: Exception) -> ServiceError:
    """The working tree has no repository that git can use."""
    return _disk_full(error, Path(path)) or FailedPrecondition(
        "NOT_A_REPOSITORY", f"the tree has no usable repository: {error}", path
    )


def revision_not_found(revision: bytes | str, *, of_empty: bool = False) -> ServiceError:
    """There is no such commit, and none at all in a repository that is empty."""
    name = revision if isinstance(revision, str) else revision.decode("utf-8", "replace")
    because = "the repository has no commit yet: HEAD begins from nothing" if of_empty else ""
    return NotFound("revision", name, because=because)


def snapshot_not_found(snapshot_id: str, repository_id: str) -> ServiceError:
    """The repository has no such snapshot."""
    return NotFound("snapshot", f"{snapshot_id} of repository {repository_id}")


def address_not_allowed(host: str, address: str) -> ServiceError:
    """The remote's name resolves to an address where no remote may be."""
    message = (
        f"{host} leads to {address}, which is not public: if a git server is there, name its network in"
        " BOATYARD_GIT_ALLOW_NETWORKS"
    )
    return FailedPrecondition("ADDRESS_NOT_ALLOWED", message, host, metadata={"address": address})


def remote_not_allowed(path: Path, problem: str) -> ServiceError:
    """A remote on this machine, what leads to it or what it leads to is another user's, or lies where none may."""
    message = (
        f"{path} {problem}: a remote on this machine must belong to the cell's user, with all that leads to it and that"
        " it leads to, or lie below a directory that BOATYARD_GIT_OTHERS_FILE_ROOTS names"
    )
    return FailedPrecondition("REMOTE_NOT_ALLOWED", message, str(path))


def repository_not_found(repository_id: str) -> ServiceError:
    """The repository has never been fetched here."""
    return NotFound("repository", repository_id)


def repository_busy(repository_id: str) -> ServiceError:
    """Another process kept one of the repository's stores locked for too long."""
    message = f"another process is working on the stores of {repository_id}"
    return Exhausted("REPOSITORY_BUSY", message, retry_after=5, metadata={"repository_id": repository_id})


def sandbox_unavailable(error: Exception) -> ServiceError:
    """Git may not touch the tree: it is not mounted now, or there is no sandbox to isolate what git would run."""
    if isinstance(error, NotMountedError):
        return FailedPrecondition("WORKSPACE_NOT_MOUNTED", str(error), "workspace")
    return FailedPrecondition("SANDBOX_UNAVAILABLE", str(error), "sandbox")


def workspace_held(error: HeldError) -> ServiceError:
    """Another process holds the layers of the workspace."""
    return FailedPrecondition("WORKSPACE_HELD", str(error), str(error.upper), metadata={"holder": error.holder})


@contextmanager
def of_sandboxes() -> Iterator[None]:
    """Say in the block's errors why a tree cannot be read in a sandbox now."""
    try:
        yield
    except SandboxUnavailableError as error:
        raise sandbox_unavailable(error) from error
    except HeldError as error:
        raise workspace_held(error) from error


def disk_full(message: str) -> ServiceError:
    """The disk has too little room."""
    return Exhausted(DISK_FULL, message, quota="disk")


def _disk_full(error: Exception, written: Path | None = None) -> ServiceError | None:
    """Return DISK_FULL when git says so, or says no more than that it could not write to a disk that has no room."""
    if tells_of_no_room(_REMOTES_WORDS.sub("", str(error))):
        return disk_full(str(error))
    if written is not None and _NOT_WRITTEN.search(str(error)) and has_no_room(written):
        return disk_full(str(error))
    return None
