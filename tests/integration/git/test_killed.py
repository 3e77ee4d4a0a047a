"""Killed at any moment, the git service leaves nothing broken: what was being made is gone, what was made is whole."""

import asyncio
import random
import subprocess
import time
from pathlib import Path

import pytest

from services.git.disk.base_cache import BaseCache
from services.git.model import Remote, StartPoint
from tests.kit.gitservice import GitParts, git_parts
from tests.kit.killable import SETTINGS, KillableWorkers
from tests.kit.repos import Repo

KILLS = 100
FILES = {f"src/{folder}/{name}": f"{folder} {name}\n" * 20 for folder in range(20) for name in range(28)}


def upstreams(root: Path) -> list[Repo]:
    repos = []
    for number in range(2):
        repo = Repo.init(root / f"upstream-{number}")
        repo.commit("first", FILES)
        repos.append(repo)
    return repos


def advance(repo: Repo, number: int) -> None:
    """Add a commit, now and then one that changes too much to be a layer."""
    folders = range(20) if number % 7 == 0 else [number % 20]
    repo.commit(f"number {number}", {f"src/{folder}/{name}": f"{number}\n" for folder in folders for name in range(25)})


async def check(parts: GitParts, repos: list[Repo]) -> None:
    """Look at everything, as after a restart."""
    for store in (*parts.paths.mirrors.glob("*.git"), *parts.paths.results.glob("*.git")):
        looked = await asyncio.to_thread(
            subprocess.run, ["git", f"--git-dir={store}", "fsck", "--no-dangling"], capture_output=True
        )
        assert looked.returncode == 0, looked.stderr
    cache = BaseCache(parts.paths)
    whole = {base.path for base in cache.all()}
    for root in (parts.paths.bases, parts.paths.result_bases):
        assert set(root.glob("*/*")) <= whole, "something lies there that is no base"
    for number, repo in enumerate(repos):
        remote = Remote(f"repo-{number}", str(repo.path))
        base = await parts.prepare(remote)
        assert base.commit_id == repo.head()
        assert (await parts.prepare(remote, StartPoint(repo.head().encode()))).layers == base.layers
        workspace = await parts.layered(base, mounted=False)
        assert await workspace.agent("git status --porcelain; git rev-parse HEAD") == f"{base.commit_id}\n"


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_killed_a_hundred_times(tmp_path: Path) -> None:
    rng = random.Random(5)
    repos = upstreams(tmp_path)
    home = tmp_path / "home"
    async with git_parts(home, tmp_path, **SETTINGS) as parts:
        base = await parts.prepare(Remote("repo-0", str(repos[0].path)))
        (base.pins_path / "workspace-1").touch()
        workspace = parts.workspace(base)
        workspace.agent.write({"new": "work"})
        size = next(iter(BaseCache(parts.paths).all())).bytes
    order = {
        "home": str(home),
        "root": str(tmp_path),
        "remotes": [str(repo.path) for repo in repos],
        "tree": str(workspace.tree.path),
        "objects": str(workspace.tree.read_only_paths[0]),
        "base": base.commit_id,
        "commits": [],
        "budget": 4 * size,
    }
    workers = KillableWorkers()
    try:
        for number in range(1, KILLS + 1):
            advance(repos[number % 2], number)
            recent = [repos[0].head(f"HEAD~{back}") for back in range(min(1 + number // 2, 4))]
            pid = workers.start(order | {"seed": number, "commits": recent})
            await asyncio.sleep(rng.uniform(0.1, 0.5))
            workers.kill(pid)
            if number % 20 == 0:
                async with git_parts(home, tmp_path, **SETTINGS) as parts:
                    await check(parts, repos)
    finally:
        workers.close()
    await nothing_half_made(home, tmp_path)


async def nothing_half_made(home: Path, root: Path) -> None:
    """Wait for the last orphaned git to end: what it still writes is swept by the start after that."""
    deadline = time.monotonic() + 30
    while True:
        async with git_parts(home, root, **SETTINGS) as parts:
            left = list(parts.paths.scratch_root.iterdir())
        if not left:
            break
        assert time.monotonic() < deadline, left
        await asyncio.sleep(0.2)
