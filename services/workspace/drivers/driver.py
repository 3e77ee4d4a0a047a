"""What a driver must do."""

from pathlib import Path
from typing import Protocol

from services.workspace.model import Layout


class Driver(Protocol):
    """Makes the files of workspaces, each in a place of its own that somebody else has made and will remove.

    A driver keeps no record. Calls about one place never overlap; calls about several do. `layers` are the base's,
    the topmost first; none means that the workspace starts empty.
    """

    @property
    def name(self) -> str:
        """How a workspace's record names this driver."""

    @property
    def on_host(self) -> bool:
        """True when a program that no sandbox surrounds finds the files, at one path."""

    async def probe(self) -> str | None:
        """Do once all that the driver promises, with real files. Return what does not work here, None when all does."""

    async def fill(self, place: Path, layers: tuple[Path, ...]) -> None:
        """Make the files in a place that is empty, and may be moved before `make_ready`.

        Raises NotFound("base"), Exhausted(DISK_FULL), DriverError. Failed or cancelled, it leaves what it likes there.
        """

    async def make_ready(self, place: Path, layers: tuple[Path, ...]) -> None:
        """Make the files usable where the place is now; again after a restart of the machine. Raises DriverError."""

    def is_filled(self, place: Path) -> bool:
        """True when `fill` came to its end there, and nobody has taken anything away."""

    def is_ready(self, place: Path) -> bool:
        """True when `make_ready` came to its end there, and still holds."""

    def layout(self, place: Path, layers: tuple[Path, ...]) -> Layout:
        """Say where the files are."""

    def own_files(self, place: Path) -> Path:
        """Return the directory that takes what the workspace has beside its base."""


class DriverError(Exception):
    """Files could not be made or removed for a reason that is no caller's fault; the text is for the log."""
