"""Drivers that copy nothing: a workspace is the base's directories with an empty one on top for the changes.

A workspace's directory has `upper`, which takes the changes, `work`, which the kernel uses, and `tree`, where the
layers are mounted. The cost is the same for repositories of any size.
"""

import asyncio
import os
import secrets
import shutil
from pathlib import Path

from services.common.errors import NotFound
from services.sandbox import aio, environment
from services.sandbox.errors import SandboxError
from services.sandbox.spec import Overlay, SandboxSpec
from services.workspace.drivers import mounts
from services.workspace.drivers.disk import DiskAdmission
from services.workspace.drivers.driver import DriverError
from services.workspace.drivers.threads import run_to_end
from services.workspace.model import Layout

_PARTS = ("upper", "work", "tree")
CHANGES = (
    "test $(cat kept) = below && echo changed > kept && rm gone && mv named renamed && chmod 700 kept"
    " && mkdir new && touch new/file && mv new newer && ln -s kept link && test ! -e gone && test -f newer/file"
)
"""What every driver supports, in shell: files of the base are changed, removed and renamed, and new directories too."""


class OverlayDriver:
    """Mounts once for all, as root: a workspace is at one path for everybody. Directories can be renamed."""

    name = "overlay"
    on_host = True

    def __init__(self, directory: Path, admission: DiskAdmission) -> None:
        """`directory` holds the directories of all workspaces; an empty layer, and probes, are made beside them."""
        self._directory = directory
        self._admission = admission
        self._empty = directory / ".empty"
        self._empty.mkdir(mode=0o755, exist_ok=True)

    async def probe(self) -> str | None:
        place = self._probe_place()
        try:
            base = probe_base(place)
            _lay_out(place, base)
            await self.make_ready(place, (base,))
            return await asyncio.to_thread(_try_as_root, place)
        except (OSError, DriverError) as error:
            return str(error)
        finally:
            await asyncio.to_thread(clear, place)

    async def fill(self, place: Path, layers: tuple[Path, ...], owner: int | None) -> None:
        self._admission.admit_nothing()
        _lay_out(place, _checked(layers) or self._empty)
        if owner is not None:
            os.chown(place / "upper", owner, owner)

    async def make_ready(self, place: Path, layers: tuple[Path, ...]) -> None:
        lowers = layers or (self._empty,)
        try:
            await run_to_end(mounts.mount_overlay, lowers, place / "upper", place / "work", place / "tree")
        except OSError as error:
            raise DriverError(f"cannot mount the layers of {place}: {error.strerror}") from error
        except SandboxError as error:
            raise DriverError(f"cannot map the layers of {place} to the uid of its agents: {error}") from error

    def is_filled(self, place: Path) -> bool:
        return all((place / part).is_dir() for part in _PARTS)

    def is_ready(self, place: Path) -> bool:
        return (place / "tree").is_mount()

    def layout(self, place: Path, layers: tuple[Path, ...]) -> Layout:
        lowers = layers or (self._empty,)
        return Layout(None, lowers, place / "upper", place / "work", place / "tree")

    def own_files(self, place: Path) -> Path:
        return place / "upper"

    def _probe_place(self) -> Path:
        place = self._directory / f".probe.{secrets.token_hex(6)}"
        place.mkdir(mode=0o700)
        return place


class UsernsDriver(OverlayDriver):
    """Leaves mounting to each sandbox, in its user namespace, without root. A base's directories cannot be renamed.

    For them the kernel returns EXDEV; `mv` then copies the directory, `git mv` does not.
    """

    name = "overlay-userns"
    on_host = False

    async def probe(self) -> str | None:
        place = self._probe_place()
        try:
            base = probe_base(place)
            _lay_out(place, base)
            target = Path("/workspace")
            stack = Overlay((base,), place / "upper", place / "work", target, holder="the probe")
            spec = SandboxSpec((b"/bin/sh", b"-c", CHANGES.encode()), target, (stack,), environment.base())
            ended = await aio.run(spec, timeout=30)
            return None if ended.exit_code == 0 else ended.stderr.decode(errors="replace").strip() or "changes are lost"
        except (OSError, SandboxError, DriverError) as error:
            return str(error)
        finally:
            await asyncio.to_thread(clear, place)

    async def make_ready(self, place: Path, layers: tuple[Path, ...]) -> None:
        """Each sandbox mounts the layers for itself."""

    def is_ready(self, place: Path) -> bool:
        return self.is_filled(place)

    def layout(self, place: Path, layers: tuple[Path, ...]) -> Layout:
        lowers = layers or (self._empty,)
        return Layout(None, lowers, place / "upper", place / "work", None)


def _lay_out(place: Path, top: Path) -> None:
    for part in _PARTS:
        (place / part).mkdir(mode=0o700)
    # The root of an overlay has the mode and owner of its upper directory.
    (place / "upper").chmod(top.stat().st_mode & 0o7777 | 0o700)


def _checked(layers: tuple[Path, ...]) -> Path | None:
    """Return the topmost layer, None without any. Raises NotFound("base")."""
    for layer in layers:
        if not layer.is_dir():
            raise NotFound("base", str(layer))
    return layers[0] if layers else None


def probe_base(place: Path) -> Path:
    """Make a base for a probe."""
    base = place / "base"
    (base / "directory").mkdir(parents=True)
    for name in ("kept", "gone", "named", "directory/file"):
        (base / name).write_text("below\n")
    return base


def _try_as_root(place: Path) -> str | None:
    tree = place / "tree"
    (tree / "kept").write_text("changed\n")
    (tree / "gone").unlink()
    (tree / "named").rename(tree / "renamed")
    (tree / "directory").rename(tree / "moved")
    seen = sorted(str(path.relative_to(tree)) for path in tree.rglob("*"))
    below = (place / "base" / "kept").read_text()
    if seen != ["kept", "moved", "moved/file", "renamed"] or below != "below\n":
        return f"changes through the mount are lost: {' '.join(seen)}"
    return None


def clear(place: Path) -> None:
    """Remove a probe. Blocks."""
    if os.geteuid() == 0:
        mounts.unmount(place / "tree", patience_s=1)
    elif (place / "work" / "work").exists():  # the kernel removes all its permissions
        (place / "work" / "work").chmod(0o700)
    shutil.rmtree(place, ignore_errors=True)
