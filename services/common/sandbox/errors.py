"""What can go wrong with a sandbox, in the words of the person who has to mend it."""


class SandboxError(Exception):
    """A sandboxed process could not do its work; subclasses say why."""


class SandboxUnavailableError(SandboxError):
    """The sandbox does not work on this machine. `mend` is what to do about it, in one line."""

    def __init__(self, problem: str, mend: str) -> None:
        super().__init__(f"{problem}. {mend}")
        self.problem = problem
        self.mend = mend


class SandboxTimeoutError(SandboxError):
    """The process took longer than it was given, and was ended."""


class OutputLimitError(SandboxError):
    """The process wrote more than its caller would take, and was ended."""
