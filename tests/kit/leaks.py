"""What a test process must not leave behind: tasks, processes, mounts, temporary files.

One test's leak would show as a failure of another, or on somebody's machine after a year. So the process is checked
once, after its last test and all fixtures, and whatever is left is an error of the run.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

_PATIENCE_SECONDS = 5.0
_MARK = "BOATYARD_TEST_SESSION"


@pytest.fixture(scope="session", autouse=True)
def nothing_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give the session its own temporary directory and mark, and look for what is left with them at its end."""
    base = tmp_path_factory.getbasetemp()  # pytest's own directory stays where people look for it
    mark = secrets.token_hex(8)
    temporary = Path(tempfile.mkdtemp(prefix="boatyard-test-"))
    before = {name: os.environ.get(name) for name in ("TMPDIR", _MARK)}
    os.environ.update({"TMPDIR": str(temporary), _MARK: mark})
    tempfile.tempdir = None  # so that TMPDIR is read again
    yield
    for name, value in before.items():
        os.environ.pop(name)
        if value is not None:
            os.environ[name] = value
    tempfile.tempdir = None
    left = _patiently(lambda: [*_processes(mark), *_mounts_below(temporary, base), *map(str, temporary.iterdir())])
    if left:
        pytest.fail("the tests left behind:\n  " + "\n  ".join(left), pytrace=False)
    shutil.rmtree(temporary)


@pytest_asyncio.fixture(scope="session", loop_scope="session", autouse=True)
async def no_task_left(nothing_left: None) -> AsyncIterator[None]:
    """Look for tasks before the session's loop is closed, which would cancel them silently."""
    yield
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while left := asyncio.all_tasks() - {asyncio.current_task()}:
        if time.monotonic() > deadline:
            pytest.fail("asyncio tasks are left:\n  " + "\n  ".join(map(repr, left)), pytrace=False)
        await asyncio.sleep(0.02)


def _patiently(look: Callable[[], list[str]]) -> list[str]:
    """Look until nothing is left or the time is over: a process may still be ending."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (leaks := look()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return leaks


def _processes(mark: str) -> list[str]:
    """Describe this process's children, and every process that inherited the mark."""
    children = _children()
    leaks = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                marked = f"{_MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0")
                if marked or entry.name in children:
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    leaks.append(f"process {entry.name}: {command or '(a zombie)'}")
            except OSError:
                continue  # it is gone, or somebody else's
    return leaks


def _children() -> set[str]:
    pids: set[str] = set()
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(
            FileNotFoundError
        ):  # the thread has just ended; its children belong to another thread now
            pids.update((thread / "children").read_text().split())
    return pids


def _mounts_below(*roots: Path) -> list[str]:
    """Describe what is mounted below some directories."""
    points = [Path(line.split()[4]) for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [f"mount {point}" for point in points if any(point.is_relative_to(root) for root in roots)]
