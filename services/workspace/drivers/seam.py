"""What a driver must do."""

from pathlib import Path
from typing import Protocol


class Driver(Protocol):
    """Makes and removes the files of workspaces in a directory of its own.

    A driver keeps no record: the store says which workspaces there are, and `recover` is told. Calls about one
    workspace never overlap; calls about several do.
    """

    @property
    def name(self) -> str:
        """How a workspace's record names this driver."""

    def path(self, workspace_id: str) -> Path:
        """Return where the files of this workspace are, or would be."""

    def exists(self, workspace_id: str) -> bool:
        """Whether the files of this workspace are there, whole."""

    async def create(self, workspace_id: str, base: Path | None) -> None:
        """Make the files: those of `base`, or none. They appear all at once.

        Replaces files of that id that no record knew. Failed or cancelled, it leaves nothing but what `clean` removes.
        Raises NotFound("base"), Exhausted(DISK_FULL), DriverError.
        """

    def discard(self, workspace_id: str) -> None:
        """Take the files out of the way at once; `clean` removes them. Without files it does nothing."""

    async def clean(self, workspace_id: str | None = None) -> None:
        """Remove what of this workspace, or of all, was discarded. Raises DriverError where something resists."""

    def recover(self, known: set[str]) -> None:
        """Discard files of workspaces that are not `known`, and what was being made when the service died."""


class DriverError(Exception):
    """Files could not be made or removed for a reason that is no caller's fault; the text is for the log."""
