"""Processes that keep the git service's parts busy, in order to be killed.

`python -m tests.kit.killable` reads one JSON order a line, forks a worker that carries it out for ever, and prints its
pid, and `ended by` when it has ended. Starting an interpreter would take longer than most of the steps to interrupt.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from services.common.errors import Exhausted
from services.git.model import Base, Remote, SnapshotSpec, StartPoint, WorkingTree
from tests.kit.gitservice import GitParts, git_parts

# Short, so that bases are evicted again and again.
SETTINGS = {"base_grace_seconds": 0, "lock_seconds": 20}


class KillableWorkers:
    """Starts and kills workers, one at a time."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.kit.killable"]
        self._forker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, order: dict[str, Any]) -> int:
        """Start a worker; return its pid."""
        assert self._forker.stdin
        self._forker.stdin.write(json.dumps(order) + "\n")
        self._forker.stdin.flush()
        return int(self._line())

    def kill(self, pid: int) -> None:
        """Kill the worker, and wait until it is gone."""
        os.kill(pid, signal.SIGKILL)
        assert self._line() == f"ended by {signal.SIGKILL}", "it ended by itself"

    def close(self) -> None:
        self._forker.communicate(timeout=20)

    def _line(self) -> str:
        assert self._forker.stdout
        return self._forker.stdout.readline().strip()


async def work(order: dict[str, Any]) -> None:
    """Fetch, build whole trees and layers, take snapshots and evict, in an order that the seed determines."""
    rng = random.Random(order["seed"])
    remotes = [Remote(f"repo-{number}", path) for number, path in enumerate(order["remotes"])]
    tree = WorkingTree(Path(order["tree"]), (Path(order["objects"]),))
    settings = {**SETTINGS, "disk_budget_bytes": order["budget"]}
    async with git_parts(Path(order["home"]), Path(order["root"]), **settings) as parts:
        for number in range(1_000_000):
            snapshot = SnapshotSpec(f"{order['seed']}-{number}", "repo-0", tree, order["base"], "kept")
            starts = [(remote, "main") for remote in remotes] + [(remotes[0], commit) for commit in order["commits"]]
            steps: list[Awaitable[object]] = [one_base(parts, *rng.choice(starts)) for _ in range(2)]
            if rng.random() < 0.3:
                steps.append(parts.manager.snapshot_tree(snapshot))
            await asyncio.gather(*steps)


async def one_base(parts: GitParts, remote: Remote, revision: str) -> Base | None:
    with contextlib.suppress(Exhausted):
        return await parts.prepare(remote, StartPoint(revision.encode()))
    return None


def main() -> None:
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1):
                os.dup2(null, descriptor)
            try:
                asyncio.run(work(json.loads(line)))
            finally:
                os._exit(1)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(f"ended by {os.WTERMSIG(status) if os.WIFSIGNALED(status) else status}", flush=True)


if __name__ == "__main__":
    main()
