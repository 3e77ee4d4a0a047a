"""What a git command's failure means to whoever asked for it."""

from services.common.errors import Exhausted, FailedPrecondition, NotFound, ServiceError
from services.git.gitcmd import GitError
from services.sandbox.errors import HeldError, NotMountedError

_DISK_FULL = ("No space left on device", "Disk quota exceeded")
# What git says where there is nothing, by a path, over ssh, and over https, where servers say the same of private ones.
_NOT_THERE = ("does not appear to be a git repository", "Repository not found", "' not found")
# What git says where it has no token, where the server takes none of it, and where the server is GitHub or GitLab.
_NOT_ADMITTED = (
    "could not read Username",
    "Authentication failed",
    "The requested URL returned error: 403",
    "Invalid username or ",
    "HTTP Basic: Access denied",
)


def clone_failed(repository_id: str, error: GitError) -> ServiceError:
    """The repository could not be fetched, now or as long as nobody makes it."""
    if any(words in str(error) for words in _NOT_THERE):
        message = f"there is no repository that could be fetched: {error}{_hint(error)}"
        return FailedPrecondition("REMOTE_NOT_FOUND", message, repository_id)
    return _disk_full(error) or FailedPrecondition(
        "CLONE_FAILED", f"the repository cannot be fetched: {error}{_hint(error)}", repository_id
    )


def take_failed(result_id: str, error: Exception) -> ServiceError:
    """A working tree could not be taken."""
    return _disk_full(error) or FailedPrecondition(
        "TAKE_FAILED", f"the working tree cannot be taken: {error}", result_id
    )


def push_rejected(branch: bytes, error: Exception) -> ServiceError:
    """The remote took no push, or was not reached."""
    message = f"the push was refused: {error}{_hint(error)}"
    return FailedPrecondition("PUSH_REJECTED", message, branch.decode("utf-8", "replace"))


def not_a_repository(path: str, error: Exception) -> ServiceError:
    """A working tree has no repository that git can use."""
    return _disk_full(error) or FailedPrecondition(
        "NOT_A_REPOSITORY", f"the tree has no usable repository: {error}", path
    )


def revision_not_found(revision: bytes | str) -> ServiceError:
    """There is no such commit."""
    return NotFound("revision", revision if isinstance(revision, str) else revision.decode("utf-8", "replace"))


def address_not_allowed(host: str, address: str) -> ServiceError:
    """The remote's name leads to an address that remotes may not have."""
    message = (
        f"{host} leads to {address}, which is not public: if a git server is there, name its network in"
        " BOATYARD_GIT_ALLOW_NETWORKS"
    )
    return FailedPrecondition("ADDRESS_NOT_ALLOWED", message, host, metadata={"address": address})


def repository_not_found(repository_id: str) -> ServiceError:
    """Nothing is known here about the repository."""
    return NotFound("repository", repository_id)


def repository_busy(repository_id: str) -> ServiceError:
    """Another process has kept a store of the repository locked for too long."""
    message = f"another process works on the stores of {repository_id}"
    return Exhausted("REPOSITORY_BUSY", message, retry_after=5, metadata={"repository_id": repository_id})


def sandbox_unavailable(error: Exception) -> ServiceError:
    """Git may not touch the tree: it is not there now, or nothing would keep what git runs apart from us."""
    if isinstance(error, NotMountedError):
        return FailedPrecondition("WORKSPACE_NOT_MOUNTED", str(error), "workspace")
    return FailedPrecondition("SANDBOX_UNAVAILABLE", str(error), "sandbox")


def workspace_held(error: HeldError) -> ServiceError:
    """Somebody else has the layers of the workspace."""
    return FailedPrecondition("WORKSPACE_HELD", str(error), str(error.upper), metadata={"holder": error.holder})


def disk_full(message: str) -> ServiceError:
    """There is no room to work in."""
    return Exhausted("DISK_FULL", message, quota="disk")


def _disk_full(error: Exception) -> ServiceError | None:
    return disk_full(str(error)) if any(words in str(error) for words in _DISK_FULL) else None


def _hint(error: Exception) -> str:
    if any(words in str(error) for words in _NOT_ADMITTED):
        return "\nThe server wants a token, or another one: create the repository with a token that may read and push."
    return ""
