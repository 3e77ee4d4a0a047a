"""The errors of sandboxes, with messages for the person who has to fix them."""

from pathlib import Path


class SandboxError(Exception):
    """A sandboxed process could not do its work; subclasses say why."""


class SandboxUnavailableError(SandboxError):
    """The sandbox does not work on this machine. `mend` says how to fix that, in one line."""

    def __init__(self, problem: str, mend: str) -> None:
        super().__init__(f"{problem}. {mend}")
        self.problem = problem
        self.mend = mend


class NotMountedError(SandboxUnavailableError):
    """The layers of a workspace are not mounted where they should be: its service is starting, or cannot mount them."""

    def __init__(self, place: Path) -> None:
        super().__init__(
            f"the workspace's layers are not mounted at {place}",
            "Restart the workspace service, which mounts it again and says what keeps it from that",
        )


class HeldError(SandboxError):
    """Another sandbox holds the layers of a workspace, which only one may hold. `holder` is its own description."""

    def __init__(self, upper: Path, holder: str) -> None:
        super().__init__(f"the layers at {upper} are held by {holder}; wait for its end, or end it")
        self.upper = upper
        self.holder = holder


class SandboxTimeoutError(SandboxError):
    """The process exceeded its time limit, and was ended."""


class OutputLimitError(SandboxError):
    """The process wrote more than its caller accepts, and was ended."""
