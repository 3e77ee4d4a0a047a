"""How long git may take: altogether, and in silence.

A remote can fall silent over any transport while its connection lives on. Git's own limit of that knows http alone, and
git says nothing of what it gets. So we look at what the kernel counts of git's processes: the bytes that each has read
and written, and its time on the processor, as git also works by itself, such as when it resolves deltas. ssh is left
out: every few seconds it asks the other side whether it still lives.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.git.gitcmd.errors import GitSilent, GitTimedOut

_LOOKS: Final = 10  # without a sign of life, in the time that makes a silence
_SSH: Final = "(ssh"
_HTTP: Final = "(git-remote-http"  # the kernel keeps 15 characters; it looks 20 times a second for what has come
# Positions after the command's name: see proc(5), stat.
_STATE, _TIMES = 0, slice(11, 13)
_AT_WORK: Final = ("R", "D")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_IDLE_SHARE: Final = 0.02  # of a processor
_BYTES: Final = slice(1, 4, 2)  # rchar and wchar: see proc(5), io


@dataclass(frozen=True, slots=True)
class _Signs:
    """What processes have done so far; `are_at_work` means that one has, or waits for, a processor or a disk now."""

    moved: tuple[tuple[str, ...], ...]
    ticks: int
    are_at_work: bool


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

        Where the kernel does not count what processes read and write, or tells no children, they may be silent.
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
    """End the block of `silence` after enough looks without a sign of life: time passes for who is frozen, too.

    Silence may begin right after a look, which counts as one of the time that it takes.
    """
    pause = seconds / (_LOOKS + 1)
    most_ticks = max(1.0, _IDLE_SHARE * _TICKS * pause)
    before, silent_looks = _signs(pid), 0
    while silent_looks < _LOOKS:
        await asyncio.sleep(pause)
        now = _signs(pid)
        works = now.are_at_work or now.ticks - before.ticks >= most_ticks
        silent_looks = 0 if works or now.moved != before.moved else silent_looks + 1
        before = now
    silence.reschedule(asyncio.get_running_loop().time())


def _is_counted() -> bool:
    return Path("/proc/self/io").exists() and Path("/proc/thread-self/children").exists()


def _signs(root: int) -> _Signs:
    pids, moved, ticks, are_at_work = [str(root)], [], 0, False
    while pids:
        process = Path("/proc", pid := pids.pop())
        try:
            name, _, numbers = (process / "stat").read_text().partition(" ")[2].rpartition(") ")
            if name == _SSH:
                continue  # nor what it starts, such as a program that connects it
            pids += [child for thread in (process / "task").iterdir() for child in _words(thread / "children")]
            moved.append((pid, *_words(process / "io")[_BYTES]))
        except OSError:
            continue  # it has just ended
        if name == _HTTP:
            continue
        stat = numbers.split()
        ticks += sum(map(int, stat[_TIMES]))
        are_at_work |= stat[_STATE] in _AT_WORK
    return _Signs(tuple(moved), ticks, are_at_work)


def _words(path: Path) -> list[str]:
    return path.read_text().split()
