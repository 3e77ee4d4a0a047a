"""Reads git's progress messages, and streams progress ahead of a result.

GitPython parses the lines. Its repositories are not used: a single ref that is not UTF-8 makes a repository unreadable
to it, its pure-Python reader is deprecated, and the processes that it starts inherit the environment of the service.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final, TypeVar

from services.git.model import Progress

# Without this, importing GitPython fails when git is missing; `app` says so in better words, with the remedy.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
import git

T = TypeVar("T")

_INTERVAL_SECONDS: Final = 0.2

_PHASES: Final = {
    git.RemoteProgress.COUNTING: "Counting objects",
    git.RemoteProgress.COMPRESSING: "Compressing objects",
    git.RemoteProgress.WRITING: "Writing objects",
    git.RemoteProgress.RECEIVING: "Receiving objects",
    git.RemoteProgress.RESOLVING: "Resolving deltas",
    git.RemoteProgress.FINDING_SOURCES: "Finding sources",
    git.RemoteProgress.CHECKING_OUT: "Checking out files",
}


class ProgressParser(git.RemoteProgress):
    """Reports progress when it changes: the same percentage of the same phase is reported once."""

    def __init__(self, report: Callable[[Progress], None]) -> None:
        super().__init__()
        self._report = report
        self._last: Progress | None = None

    def __call__(self, line: str) -> None:
        """Parse one line that git wrote to stderr; lines about anything else are ignored."""
        # The parser would keep every line that it does not recognise.
        self.other_lines.clear()
        self.error_lines.clear()
        self._parse_progress_line(line.rstrip())

    def update(
        self, op_code: int, cur_count: str | float, max_count: str | float | None = None, message: str = ""
    ) -> None:
        """Handle one line of progress; the parser calls this."""
        del message
        phase = _PHASES.get(op_code & self.OP_MASK)
        if phase is None:
            return
        percent = int(float(cur_count) * 100 / float(max_count)) if cur_count and max_count else None
        progress = Progress(phase, percent)
        if progress != self._last:
            self._last = progress
            self._report(progress)


async def with_progress(
    work: Callable[[Callable[[Progress], None]], Awaitable[T]],
) -> AsyncGenerator[Progress | T, None]:
    """Yield the progress that the work reports, at most five times a second, and its outcome last.

    Close the generator (`contextlib.aclosing`) to cancel the work.
    """
    latest: list[Progress] = []
    news = asyncio.Event()

    def report(progress: Progress) -> None:
        latest[:] = [progress]
        news.set()

    async def run() -> T:
        return await work(report)

    task = asyncio.create_task(run())
    task.add_done_callback(lambda _: news.set())
    try:
        while not task.done():
            await news.wait()
            news.clear()
            while latest:
                yield latest.pop()
                await asyncio.wait({task}, timeout=_INTERVAL_SECONDS)
        yield await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
