"""Repacks mirrors: many fetches leave many small packs, and every git that reads the mirror has to open all of them."""

import asyncio
import shutil
from pathlib import Path
from typing import Final

import structlog

from services.common.errors import ServiceError
from services.git.gitcmd import Command, Git, GitError, Invocation
from services.git.paths import GitPaths
from services.git.stores.mirrors import Mirrors

_INTERVAL_SECONDS: Final = 3600.0
# A lookup searches every pack, and each loose object is a file. Git's own limits for `gc --auto` are 50 and 6,700.
_MANY_PACKS: Final = 20
_MANY_LOOSE: Final = 2000

_log = structlog.get_logger()


class MirrorRepacker:
    """Repacks mirrors, one after another. No object is lost, because base trees may borrow unreachable ones."""

    def __init__(self, git: Git, paths: GitPaths, mirrors: Mirrors) -> None:
        self._git = git
        self._paths = paths
        self._mirrors = mirrors

    async def run_repacking(self) -> None:
        """Repack, every hour until cancelled, the mirrors that have too many packs."""
        while True:
            await asyncio.sleep(_INTERVAL_SECONDS)
            for mirror in sorted(self._paths.mirrors.glob("*.git")):
                try:
                    await self.repack(mirror.name.removesuffix(".git"))
                except (ServiceError, GitError, OSError) as error:
                    _log.warning("cannot repack a mirror", mirror=str(mirror), error=str(error))

    async def repack(self, repository_id: str) -> bool:
        """Repack one mirror if it has too many packs; return whether it had.

        Raises:
            GitError: git cannot.
            Exhausted: REPOSITORY_BUSY.
        """
        mirror = self._paths.mirror(repository_id)
        if not await asyncio.to_thread(_is_scattered, mirror):
            return False
        scratch = self._paths.scratch()
        try:
            async with self._mirrors.writing(repository_id) as lock_fd:
                invocation = Invocation(git_dir=_alias(mirror, scratch), timeout_seconds=3600, inherited_fds=(lock_fd,))
                # Merges small packs and loose objects into larger packs, unreachable objects included.
                await self._git.run(Command("repack", ("-d", "-q", "--geometric=2")), invocation)
        finally:
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
        _log.info("repacked a mirror", repository_id=repository_id)
        return True


def _alias(mirror: Path, scratch: Path) -> Path:
    """Make a repository that is the mirror in all but its configuration.

    The mirror's configuration calls its objects precious, so git refuses to replace packs there. Were it changed for
    the repack, a crash could leave the mirror without that guard; what a crash leaves of the alias is removed at
    start-up.
    """
    alias = scratch / "mirror.git"
    alias.mkdir()
    (alias / "HEAD").write_bytes((mirror / "HEAD").read_bytes())
    (alias / "config").write_text("[core]\n\tbare = true\n")
    for name in ("objects", "refs", "packed-refs"):
        (alias / name).symlink_to(mirror / name)
    return alias


def _is_scattered(mirror: Path) -> bool:
    packs = sum(1 for _ in mirror.glob("objects/pack/*.pack"))
    loose = sum(1 for _ in mirror.glob("objects/[0-9a-f][0-9a-f]/*"))
    return packs > _MANY_PACKS or loose > _MANY_LOOSE
