"""What a driver must do."""

from pathlib import Path
from typing import Protocol

from services.workspace.model import Layout


class Driver(Protocol):
    """Makes the files of workspaces, each in its own directory (`place`), which others make and remove.

    A driver keeps no records. Calls for one place never overlap; calls for several do. `layers` are the base's, the
    topmost first; without any the workspace starts empty.
    """

    @property
    def name(self) -> str:
        """The driver's name in the records of workspaces."""

    @property
    def on_host(self) -> bool:
        """True when programs outside of a sandbox find the files, at one path."""

    async def probe(self) -> str | None:
        """Try everything that the driver does, with real files. Return what does not work here, or None."""

    async def fill(self, place: Path, layers: tuple[Path, ...], owner: int | None) -> None:
        """Make the files in an empty place, which may be moved before `make_ready`.

        They belong to the uid `owner`, or (None) as those of the base do.

        Raises NotFound("base"), Exhausted(DISK_FULL), DriverError. It may leave files there when it fails.
        """

    async def make_ready(self, place: Path, layers: tuple[Path, ...]) -> None:
        """Make the files usable at the final place; called again after a restart of the machine. Raises DriverError."""

    def is_filled(self, place: Path) -> bool:
        """True when `fill` has completed there, and nothing has been removed."""

    def is_ready(self, place: Path) -> bool:
        """True when `make_ready` has completed there, and is still in effect."""

    def layout(self, place: Path, layers: tuple[Path, ...]) -> Layout:
        """Return where the files are."""

    def own_files(self, place: Path) -> Path:
        """Return the directory with what the workspace has in addition to its base."""


class DriverError(Exception):
    """Files could not be made or removed, and the caller is not at fault; the text is for the log."""
