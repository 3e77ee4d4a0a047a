"""Whether a sandbox's directories in memory were full: their kernel refuses more, and nobody else would say why."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from services.execution.processes import orphans
from services.sandbox.environment import HOME

_TMP = Path("/tmp")  # noqa: S108 - the sandbox's own
# A container engine mounts this one outside, where it could not take it away while somebody holds it.
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the same
_FULL_BYTES = 64 << 10


class Scratch:
    """Looks at the directories of one sandbox, and holds them: a sandbox that has ended still says how full they were.

    `was_full` is True when one of them had no more room, in bytes or in files, at any look.
    """

    def __init__(self, *, has_home: bool = True) -> None:
        """`has_home` is True when HOME is one of them."""
        self.was_full = False
        self._places = (_TMP, HOME) if has_home else (_TMP,)
        self._held: list[int] = []

    def look(self, init: int | None) -> None:
        """Look, given the sandbox's first process; None while there is none."""
        if not self._held and init is not None:
            self._hold(init)
        if init is not None:
            with contextlib.suppress(OSError):
                self._judge(os.statvfs(f"/proc/{init}/root{_SHARED_MEMORY}"))
        for descriptor in self._held:
            self._judge(os.fstatvfs(descriptor))

    def close(self) -> None:
        """Look a last time, and let go of them: what is in them takes memory until then."""
        self.look(None)
        while self._held:
            os.close(self._held.pop())

    def _hold(self, init: int) -> None:
        """Open them, once all are mounted, by a process in the sandbox that lets us."""
        for process in (*orphans.children(init), init):
            with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
                held = [_opened(Path(f"/proc/{process}/root"), place, stack) for place in self._places]
                if all(map(_is_mount, held, self._parents(process))):
                    self._held = held
                    stack.pop_all()
                    return

    def _parents(self, process: int) -> Iterator[os.stat_result]:
        return (Path(f"/proc/{process}/root{place.parent}").stat() for place in self._places)

    def _judge(self, status: os.statvfs_result) -> None:
        has_room = status.f_bfree * status.f_frsize >= _FULL_BYTES and (status.f_ffree or not status.f_files)
        self.was_full = self.was_full or not has_room


def _opened(root: Path, place: Path, stack: contextlib.ExitStack) -> int:
    descriptor = os.open(f"{root}{place}", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    return descriptor


def _is_mount(descriptor: int, parent: os.stat_result) -> bool:
    """True when what is held is a file system of its own: before the sandbox has mounted it, it is the host's."""
    return os.fstat(descriptor).st_dev != parent.st_dev
