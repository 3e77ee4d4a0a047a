"""The driver that works everywhere: a workspace is a copy of its base.

Below `directory`:

    <workspace id>/tree      a workspace's files
    .making/<id>.<random>/   one that is being made; renamed when it is whole
    .trash/<id>.<random>/    one that was discarded; renamed first, removed when there is time

Ids never begin with a dot, so nothing collides. A rename is all that a workspace needs to appear and to disappear, so
a service killed at any moment leaves whole workspaces, and rubbish that the next start knows by its place.
"""

import asyncio
import os
import secrets
from pathlib import Path

import structlog

from services.common.errors import NotFound, StartError
from services.workspace.drivers.disk import DiskAdmission, disk_full
from services.workspace.drivers.process import run
from services.workspace.drivers.seam import DriverError

_MAKING = ".making"
_TRASH = ".trash"
_COPY = ("cp", "-a", "--reflink=auto", "--")
_NO_SPACE = ("No space left on device", "Disk quota exceeded")
_CONCURRENT_REMOVALS = 2
# A `cp` that outlived its killed service may still write into what is being removed; it ends by itself.
_CLEAN_ATTEMPTS = 6
_CLEAN_PAUSE_S = 0.2

_log = structlog.get_logger()


class CopyDriver:
    """Copies trees; where the file system can (btrfs, XFS), the copies share their data."""

    name = "copy"

    def __init__(self, directory: Path, admission: DiskAdmission, *, concurrent_copies: int) -> None:
        self._directory = directory
        self._admission = admission
        self._copying = asyncio.Semaphore(concurrent_copies)
        self._removing = asyncio.Semaphore(_CONCURRENT_REMOVALS)
        for name in (_MAKING, _TRASH):
            (directory / name).mkdir(mode=0o700, exist_ok=True)

    async def check(self) -> None:
        """Copy and remove a tree of nothing, as all others will be. Raises StartError where the tools cannot."""
        source, target = (_beside(self._directory / _MAKING, "check") for _ in range(2))
        for path in (source, target):
            path.mkdir()
        try:
            complaint = await run(*_COPY, f"{source}/.", target) or await _remove(source) or await _remove(target)
        except FileNotFoundError as error:
            complaint = str(error)
        if complaint:
            raise StartError(f"cannot copy and remove trees ({complaint}): apt-get install coreutils")

    def path(self, workspace_id: str) -> Path:
        """See Driver."""
        return self._directory / workspace_id / "tree"

    def exists(self, workspace_id: str) -> bool:
        """See Driver."""
        return self.path(workspace_id).is_dir()

    async def create(self, workspace_id: str, base: Path | None) -> None:
        """See Driver."""
        if base is not None:
            _check_base(base)
        async with self._copying:
            await self._admission.admit(base)
            aside = _beside(self._directory / _MAKING, workspace_id)
            tree = aside / "tree"
            tree.mkdir(parents=True, mode=0o700)
            try:
                if base is not None:
                    await self._copy(base, tree)
                self.discard(workspace_id)
                aside.rename(self._directory / workspace_id)
            except BaseException:
                aside.rename(_beside(self._directory / _TRASH, workspace_id))
                raise

    async def _copy(self, base: Path, tree: Path) -> None:
        # "/." copies what is in the base, also when the base itself is a link, and gives the tree the base's own mode.
        complaint = await run(*_COPY, f"{base}/.", tree)
        if complaint is None:
            _make_writable(tree)
            return
        if any(text in complaint for text in _NO_SPACE):
            raise disk_full(self._directory)
        _check_base(base)
        raise DriverError(f"cannot copy {base}: {complaint}")

    def discard(self, workspace_id: str) -> None:
        """See Driver."""
        try:
            (self._directory / workspace_id).rename(_beside(self._directory / _TRASH, workspace_id))
        except FileNotFoundError:
            return

    async def clean(self, workspace_id: str | None = None) -> None:
        """See Driver."""
        mine = "" if workspace_id is None else f"{workspace_id}."
        rubbish = [path for path in _entries(self._directory / _TRASH) if path.name.startswith(mine)]
        async with self._removing:
            resisting = [complaint for path in rubbish if (complaint := await _remove(path))]
        if resisting:
            raise DriverError("; ".join(resisting))

    def recover(self, known: set[str]) -> None:
        """See Driver."""
        for path in _entries(self._directory / _MAKING):
            path.rename(self._directory / _TRASH / path.name)
        for path in _entries(self._directory):
            if path.name not in known and not path.name.startswith("."):
                _log.warning("discarded a tree that no record knows", path=str(path))
                path.rename(_beside(self._directory / _TRASH, path.name))


def _check_base(base: Path) -> None:
    if not base.is_dir():
        raise NotFound("base", str(base))


def _make_writable(tree: Path) -> None:
    tree.chmod(tree.stat().st_mode | 0o700)


def _beside(directory: Path, name: str) -> Path:
    return directory / f"{name}.{secrets.token_hex(6)}"


def _entries(directory: Path) -> list[Path]:
    return [Path(entry.path) for entry in os.scandir(directory)]


async def _remove(path: Path) -> str | None:
    """Remove a tree that an agent may have written; return the complaint when it cannot be removed.

    `rm` opens directories relative to their parents and never follows a link. It fails on directories that their
    owner made unwritable, which `chmod` mends; as root there are none.
    """
    complaint: str | None = None
    for attempt in range(_CLEAN_ATTEMPTS):
        complaint = await run("rm", "-rf", "--one-file-system", "--", path)
        if complaint is None:
            return None
        await run("chmod", "-R", "u+rwx", "--", path)
        await asyncio.sleep(_CLEAN_PAUSE_S * attempt)
    return complaint
