"""How long git may take: altogether, and in silence.

A remote can fall silent over any transport while its connection lives on. Git's own limit of that knows http alone, and
git says nothing of what it gets. So we look at what the kernel counts of git's processes: the bytes that each has read
and written, and its time on the processor, as git also works by itself, such as when it resolves deltas. ssh is left
out: every few seconds it asks the other side whether it still lives.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.git.gitcmd.errors import GitSilent, GitTimedOut

_LOOKS: Final = 10  # in the time that makes a silence
_SSH: Final = "(ssh"
# Positions after the command's name: see proc(5), stat.
_STATE, _TIMES = 0, slice(11, 13)
_AT_WORK: Final = ("R", "D")
_BYTES: Final = slice(1, 4, 2)  # rchar and wchar: see proc(5), io


@dataclass(frozen=True, slots=True)
class _Signs:
    """What one process has done so far. `is_at_work`: it has, or waits for, a processor or a disk now."""

    pid: str
    counts: tuple[str, ...]
    is_at_work: bool


class Patience:
    """The limits of one process, with those that it starts; `said` returns what it has said, for errors."""

    def __init__(self, name: str, pid: int, said: Callable[[], str]) -> None:
        self._name = name
        self._pid = pid
        self._said = said

    @contextlib.asynccontextmanager
    async def within(self, seconds: float) -> AsyncIterator[None]:
        """Raise GitTimedOut when the block takes longer."""
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            raise GitTimedOut(self._name, seconds, self._said()) from None

    @contextlib.asynccontextmanager
    async def unless_silent(self, seconds: float | None) -> AsyncIterator[None]:
        """Raise GitSilent in the block when the processes have done nothing for so long; None is for ever.

        Where the kernel does not count what processes read and write, they may be silent.
        """
        if seconds is None or not _is_counted():
            yield
            return
        try:
            async with asyncio.timeout(None) as silence:
                watching = asyncio.create_task(_watch(silence, self._pid, seconds))
                try:
                    yield
                finally:
                    watching.cancel()
                    await asyncio.gather(watching, return_exceptions=True)
        except TimeoutError:
            raise GitSilent(self._name, seconds, self._said()) from None


async def _watch(silence: asyncio.Timeout, pid: int, seconds: float) -> None:
    """Put the end of the silence off for as long as there are signs of life."""
    before = None
    while not silence.expired():
        signs = [*_signs(pid)]
        if signs != before or any(each.is_at_work for each in signs):
            silence.reschedule(asyncio.get_running_loop().time() + seconds)
        before = signs
        await asyncio.sleep(seconds / _LOOKS)


def _is_counted() -> bool:
    return Path("/proc/self/io").exists()


def _signs(root: int) -> Iterator[_Signs]:
    pids = [str(root)]
    while pids:
        process = Path("/proc", pid := pids.pop())
        try:
            name, _, numbers = (process / "stat").read_text().partition(" ")[2].rpartition(") ")
            if name == _SSH:
                continue  # nor what it starts, such as a program that connects it
            pids += [child for thread in (process / "task").iterdir() for child in _words(thread / "children")]
            stat = numbers.split()
            counts = (*stat[_TIMES], *_words(process / "io")[_BYTES])
        except OSError:
            continue  # it has just ended
        yield _Signs(pid, counts, stat[_STATE] in _AT_WORK)


def _words(path: Path) -> list[str]:
    return path.read_text().split()
