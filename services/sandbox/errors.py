"""What can go wrong with a sandbox, in the words of the person who has to mend it."""

from pathlib import Path


class SandboxError(Exception):
    """A sandboxed process could not do its work; subclasses say why."""


class SandboxUnavailableError(SandboxError):
    """The sandbox does not work on this machine. `mend` is what to do about it, in one line."""

    def __init__(self, problem: str, mend: str) -> None:
        super().__init__(f"{problem}. {mend}")
        self.problem = problem
        self.mend = mend


class NotMountedError(SandboxUnavailableError):
    """The layers of a workspace are not where its service mounts them: that begins to run again, or cannot."""

    def __init__(self, place: Path) -> None:
        super().__init__(
            f"the workspace's layers are not mounted at {place}",
            "Restart the workspace service, which mounts it again and says what keeps it from that",
        )


class HeldError(SandboxError):
    """Another sandbox has the layers of a workspace, which only one may have. `holder` is what it said of itself."""

    def __init__(self, upper: Path, holder: str) -> None:
        super().__init__(f"the layers at {upper} are held by {holder}; wait for its end, or end it")
        self.upper = upper
        self.holder = holder


class SandboxTimeoutError(SandboxError):
    """The process took longer than it was given, and was ended."""


class OutputLimitError(SandboxError):
    """The process wrote more than its caller would take, and was ended."""
