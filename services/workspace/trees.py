"""The directories of workspaces: one each (its "place"), which appears and disappears by a rename.

Below `directory`:

    <workspace id>/          a workspace's place, with its driver's files, `home` if its agents have one, and `pin`
    .making/<id>.<random>/   one that is being made; renamed when it is complete
    .trash/<id>.<random>/    one that was discarded; renamed first, and removed later

Ids never begin with a dot, so nothing collides. A service killed at any moment leaves complete places, and leftovers
that the next start recognizes by their location, or because they have no record.

`pin` is a link to the file that shows the owner of the base that it is in use. The link is made before that file, and
removed after it, so no file is left behind unnoticed.
"""

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import structlog

from services.common.errors import FailedPrecondition, NotFound
from services.sandbox import layer_locks
from services.sandbox.errors import HeldError
from services.workspace.drivers import Driver, DriverError, mounts
from services.workspace.drivers.process import run
from services.workspace.drivers.threads import run_to_end
from services.workspace.files import write_files
from services.workspace.model import NewWorkspace

_MAKING = ".making"
_TRASH = ".trash"
_PIN = "pin"
_CONCURRENT_REMOVALS = 2
# A `cp` of a killed service may still write into what is being removed; it ends by itself.
_CLEAN_ATTEMPTS = 6
_CLEAN_PAUSE_S = 0.2
_BUSY_PATIENCE_S = 1.0
_ENDING_PATIENCE_S = 2.0
_ENDING_PAUSE_S = 0.02

_log = structlog.get_logger()


class WorkspaceTrees:
    """Makes, finds and removes places. Calls for one workspace never overlap; calls for several do."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._removing = asyncio.Semaphore(_CONCURRENT_REMOVALS)
        for name in (_MAKING, _TRASH):
            (directory / name).mkdir(mode=0o700, exist_ok=True)

    def place(self, workspace_id: str) -> Path:
        """Return the directory that the workspace has, or would have."""
        return self.directory / workspace_id

    async def create(
        self,
        request: NewWorkspace,
        driver: Driver,
        owner: int | None = None,
        complete: Callable[[Path], None] = lambda _: None,
    ) -> None:
        """Make a workspace's files and its pin. Replaces files of that id without a record.

        The files belong to the uid `owner`, or (None) to us. `complete`, which may block, is called last.
        When it fails or is cancelled, `clean` removes what it leaves. Raises NotFound("base"), Exhausted(DISK_FULL),
        DriverError.
        """
        workspace_id, layers, pins = request.workspace_id, request.base_layers, request.pins_path
        aside = _beside(self.directory / _MAKING, workspace_id)
        aside.mkdir(mode=0o700)
        place = self.place(workspace_id)
        try:
            if pins is not None:
                _pin(aside, pins / workspace_id)
            await driver.fill(aside, layers, owner)
            if request.files:
                await run_to_end(write_files, driver.own_files(aside), request.files, owner)
            if place.exists():
                await self.discard(workspace_id)
            aside.rename(place)
            await driver.make_ready(place, layers)
            await run_to_end(complete, place)
        except BaseException:
            for path in (aside, place):
                with suppress(FileNotFoundError):
                    path.rename(_beside(self.directory / _TRASH, workspace_id))
            raise

    @asynccontextmanager
    async def locked(self, workspace_id: str, own_files: Path) -> AsyncIterator[None]:
        """Keep all sandboxes out of a workspace. Raises FailedPrecondition(WORKSPACE_HELD) when one is in it."""
        if layer_locks.was_ever_held(own_files):
            try:
                descriptor = await run_to_end(layer_locks.acquire, own_files, "its removal", shared=False)
            except HeldError as error:
                raise FailedPrecondition(
                    "WORKSPACE_HELD",
                    f"workspace {workspace_id!r} is held by {error.holder}; end that first",
                    workspace_id,
                    metadata={"holder": error.holder},
                ) from error
            try:
                yield
            finally:
                os.close(descriptor)
        else:
            yield

    async def discard(self, workspace_id: str) -> None:
        """Move a place to the trash, if there is one; `clean` removes it. Raises DriverError."""
        place = self.place(workspace_id)
        if place.exists():
            await _unmount_below(place)
            place.rename(_beside(self.directory / _TRASH, workspace_id))

    def unmount_idle(self) -> None:
        """Unmount what nobody uses; `make_ready` mounts it again. Blocks for up to 2 s while sandboxes are ending."""
        deadline = time.monotonic() + _ENDING_PATIENCE_S
        while points := mounts.mounted_below(self.directory):
            for point in points:
                with suppress(OSError):  # while stopping there is nobody to report to; the next start handles it
                    if layer_locks.held_by(point.with_name("upper")) is None:
                        mounts.unmount(point)
            if time.monotonic() > deadline:
                return
            time.sleep(_ENDING_PAUSE_S)

    async def clean(self, workspace_id: str | None = None) -> None:
        """Remove what was discarded of this workspace, or of all. Raises DriverError when that fails."""
        mine = "" if workspace_id is None else f"{workspace_id}."
        rubbish = [path for path in _entries(self.directory / _TRASH) if path.name.startswith(mine)]
        async with self._removing:
            resisting = [complaint for path in rubbish if (complaint := await self._remove(path))]
        if resisting:
            raise DriverError("; ".join(resisting))

    async def recover(self, known: Collection[str]) -> None:
        """Discard what is not in `known`, and what was being made when the service died, with its mounts."""
        for path in _entries(self.directory / _MAKING):
            path.rename(self.directory / _TRASH / path.name)
        for path in _entries(self.directory):
            if path.name.startswith(".probe."):
                await _unmount_below(path)
                path.rename(_beside(self.directory / _TRASH, path.name.lstrip(".")))
            elif path.name not in known and not path.name.startswith("."):
                _log.warning("discarded a workspace that no record knows", path=str(path))
                await self.discard(path.name)
        for name in known:
            pin = self.place(name) / _PIN
            if pin.is_symlink():
                with suppress(OSError):  # the owner of the base has removed the directory
                    pin.readlink().touch(mode=0o600)

    async def _remove(self, path: Path) -> str | None:
        """Remove a discarded place, the pin last; return the error when something cannot be removed."""
        await _unmount_below(path)
        with suppress(FileNotFoundError):  # another call of `clean` was faster
            complaint = await _remove_trees([part for part in _entries(path) if part.name != _PIN])
            if complaint is not None:
                return complaint
            self._finish(path)
        return None

    def _finish(self, path: Path) -> None:
        link = path / _PIN
        if link.is_symlink():
            pin = link.readlink()
            # A newer workspace of the same id may need it: that makes its link before it makes the file.
            links = [self.place(pin.name) / _PIN, *(self.directory / _MAKING).glob(f"{pin.name}.*/{_PIN}")]
            if not any(other.is_symlink() and other.readlink() == pin for other in links):
                pin.unlink(missing_ok=True)
            link.unlink()
        path.rmdir()


def _pin(aside: Path, pin: Path) -> None:
    (aside / _PIN).symlink_to(pin)
    try:
        pin.touch(mode=0o600)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound("base", str(pin.parent)) from None
    except OSError as error:
        raise DriverError(f"cannot tell the owner of the base that it is in use: {error}") from error


def _beside(directory: Path, name: str) -> Path:
    return directory / f"{name}.{secrets.token_hex(6)}"


def _entries(directory: Path) -> list[Path]:
    return [Path(entry.path) for entry in os.scandir(directory)]


async def _unmount_below(directory: Path) -> None:
    """Raises DriverError."""
    try:
        await run_to_end(_unmount_all, directory)
    except OSError as error:
        raise DriverError(f"cannot unmount {error.filename}: {error.strerror}") from error


def _unmount_all(directory: Path) -> None:
    for point in mounts.mounted_below(directory):
        if not mounts.unmount(point, _BUSY_PATIENCE_S):
            _log.warning("somebody is still in a workspace that goes; hidden from all others", path=str(point))
            mounts.hide(point)


async def _remove_trees(paths: list[Path]) -> str | None:
    """Remove trees that an agent may have written; return the error when one cannot be removed.

    `rm` opens directories relative to their parents and never follows a link. It fails on directories that their owner,
    or the kernel for an overlay, made unwritable, which `chmod` fixes; for root there are none.
    """
    complaint: str | None = None
    for attempt in range(_CLEAN_ATTEMPTS):
        complaint = await run("rm", "-rf", "--one-file-system", "--", *paths)
        if complaint is None:
            return None
        await run("chmod", "-R", "u+rwx", "--", *paths)
        await asyncio.sleep(_CLEAN_PAUSE_S * attempt)
    return complaint
