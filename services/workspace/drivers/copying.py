"""Drivers that work nearly everywhere: a workspace is a copy of its base, `tree` in the workspace's directory."""

import asyncio
import secrets
import shutil
from pathlib import Path

from services.common.errors import NotFound
from services.sandbox import aio, environment
from services.sandbox.errors import SandboxError
from services.sandbox.spec import Mount, MountAccess, Overlay, SandboxSpec
from services.workspace.drivers.disk import DiskAdmission, disk_full
from services.workspace.drivers.driver import DriverError
from services.workspace.drivers.process import run
from services.workspace.model import Layout

_NO_SPACE = ("No space left on device", "Disk quota exceeded")
_STACKED, _COPY = Path("/base"), Path("/copy")
_COPY_SECONDS = 3600.0


class CopyDriver:
    """Copies trees."""

    name = "copy"
    on_host = True
    _reflink = "auto"

    def __init__(self, directory: Path, admission: DiskAdmission, copying: asyncio.Semaphore) -> None:
        """`directory` has the directories of all workspaces; `copying` bounds concurrent copies of all drivers."""
        self._directory = directory
        self._admission = admission
        self._copying = copying

    async def probe(self) -> str | None:
        place = self._directory / f".probe.{secrets.token_hex(6)}"
        try:
            (place / "base").mkdir(parents=True, mode=0o700)
            (place / "base" / "file").write_bytes(b"x" * 4096)
            complaint = await run(*self._command, f"{place}/base/.", place / "tree")
        except OSError as error:
            complaint = f"{error}: apt-get install coreutils"
        finally:
            await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
        return complaint and f"cannot copy trees ({complaint})"

    async def fill(self, place: Path, layers: tuple[Path, ...], owner: int | None) -> None:
        _check(layers)
        async with self._copying:
            await self._admission.admit(layers)
            tree = place / "tree"
            tree.mkdir(mode=0o700)
            complaint = await self._copy(layers, tree)
            if complaint is None and owner is not None:
                complaint = await run("chown", "-hR", f"{owner}:{owner}", "--", tree)
            if complaint is None:
                tree.chmod(tree.stat().st_mode | 0o700)
                return
        if any(text in complaint for text in _NO_SPACE):
            raise disk_full(self._directory)
        _check(layers)
        raise DriverError(f"cannot copy {', '.join(map(str, layers))}: {complaint}")

    async def make_ready(self, place: Path, layers: tuple[Path, ...]) -> None:
        """A copy is ready as it is."""

    def is_filled(self, place: Path) -> bool:
        return (place / "tree").is_dir()

    def is_ready(self, place: Path) -> bool:
        return self.is_filled(place)

    def layout(self, place: Path, layers: tuple[Path, ...]) -> Layout:  # noqa: ARG002 - a copy has none
        return Layout(place / "tree")

    def own_files(self, place: Path) -> Path:
        return place / "tree"

    @property
    def _command(self) -> tuple[str, ...]:
        return ("cp", "-a", f"--reflink={self._reflink}", "--")

    async def _copy(self, layers: tuple[Path, ...], tree: Path) -> str | None:
        if len(layers) > 1:
            return await self._flatten(layers, tree)
        # "/." copies the content of the base, also when the base itself is a link, and gives the tree the base's mode.
        return await run(*self._command, f"{layers[0]}/.", tree) if layers else None

    async def _flatten(self, layers: tuple[Path, ...], tree: Path) -> str | None:
        """Copy from inside a sandbox that sees the layers as one read-only tree."""
        # Reflinks do not work through an overlay: the kernel returns EXDEV.
        argv = (b"cp", b"-a", b"--", b"%b/." % bytes(_STACKED), bytes(_COPY))
        shown = (Overlay(layers, None, None, _STACKED), Mount(tree, _COPY, MountAccess.READ_WRITE))
        spec = SandboxSpec(argv, Path("/"), shown, environment.base() | {"LC_ALL": b"C"})
        try:
            ended = await aio.run(spec, timeout=_COPY_SECONDS)
        except SandboxError as error:
            return str(error)
        return None if ended.exit_code == 0 else ended.stderr.decode(errors="replace").strip()


class ReflinkDriver(CopyDriver):
    """Copies trees on a file system where copies share their data with the base until they change (btrfs, XFS)."""

    name = "reflink"
    _reflink = "always"


def _check(layers: tuple[Path, ...]) -> None:
    for layer in layers:
        if not layer.is_dir():
            raise NotFound("base", str(layer))
