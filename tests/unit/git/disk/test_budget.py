"""The disk budget: what nobody uses goes first, what somebody uses never, and too much is refused beforehand."""

import asyncio
import os
import shutil
import threading
from pathlib import Path

import pytest

from services.common.errors import Exhausted
from services.common.home import Home
from services.git.disk.base_cache import BaseCache, CachedBase
from services.git.disk.budget import DiskBudget, DiskLimits
from services.git.disk.walk import walk_tree
from services.git.model import Remote
from services.git.paths import GitPaths
from tests.kit.gitservice import GitParts, git_parts
from tests.kit.repos import Repo

HOUR = 3600.0


@pytest.fixture
def paths(tmp_path: Path) -> GitPaths:
    paths = GitPaths(Home(tmp_path / "home"))
    paths.make()
    return paths


def make_base(
    paths: GitPaths, repository_id: str, letter: str, size: int, below: CachedBase | None = None
) -> CachedBase:
    """Put a base of a made-up size into the cache, last used as many hours ago as its letter says."""
    cache = BaseCache(paths)
    building = paths.scratch() / "base"
    (building / "tree").mkdir(parents=True)
    path = paths.base(repository_id, letter * 40)
    cache.put(building, path, (size, 1), below)
    used = 1_000_000_000 - HOUR * int(letter, 16)
    for used_path in (path / "pins", path):
        os.utime(used_path, (used, used))
    base = cache.find(path)
    assert base
    return base


def budget(paths: GitPaths, **limits: float) -> DiskBudget:
    return DiskBudget(paths, BaseCache(paths), DiskLimits(**limits))


async def test_what_was_used_least_lately_goes_first(paths: GitPaths) -> None:
    bases = [make_base(paths, "repo-1", letter, 100) for letter in "123"]
    async with budget(paths, budget_bytes=350).reserve(120):
        assert [base.path.exists() for base in bases] == [True, True, False]


async def test_what_is_in_use_or_below_it_or_was_handed_out_just_now_stays(paths: GitPaths) -> None:
    whole = make_base(paths, "repo-1", "9", 100)
    layer = make_base(paths, "repo-1", "8", 10, whole)
    fresh = make_base(paths, "repo-2", "7", 100)
    (layer.pins_path / "workspace-1").touch()
    os.utime(fresh.path)
    keeper = budget(paths, budget_bytes=250)
    with pytest.raises(Exhausted) as refusal:
        async with keeper.reserve(100):
            pass
    assert refusal.value.reason == "DISK_FULL"
    assert "delete workspaces" in refusal.value.message
    assert all(base.path.exists() for base in (whole, layer, fresh))
    (layer.pins_path / "workspace-1").unlink()
    os.utime(layer.pins_path, (0, 0))  # it was let go long ago
    async with budget(paths, budget_bytes=250, grace_seconds=0).reserve(150):
        assert [base.path.exists() for base in (whole, layer, fresh)] == [False, False, True]


async def test_room_is_kept_for_what_is_being_made(paths: GitPaths) -> None:
    keeper = budget(paths, budget_bytes=100)
    async with keeper.reserve(60) as reservation:
        with pytest.raises(Exhausted):
            await keeper.make_room(60)
        await reservation.resize(10)
        async with keeper.reserve(60):
            pass
    async with keeper.reserve(100):
        pass


async def test_a_repository_that_something_is_made_from_is_left_alone(paths: GitPaths) -> None:
    base = make_base(paths, "repo-1", "1", 100)
    cache = BaseCache(paths)
    keeper = DiskBudget(paths, cache, DiskLimits(budget_bytes=150))
    with cache.holding("repo-1"), pytest.raises(Exhausted):
        await keeper.make_room(100)
    assert base.path.exists()
    assert await keeper.make_room(100) == 100
    assert not base.path.exists()


async def test_without_a_budget_nothing_goes_and_a_full_disk_is_refused(paths: GitPaths) -> None:
    base = make_base(paths, "repo-1", "1", 100)
    async with budget(paths).reserve(1000):
        assert base.path.exists()
    with pytest.raises(Exhausted):
        await budget(paths, min_free_bytes=1 << 60).make_room(0)


def test_half_made_bases_and_those_that_lie_on_nothing_are_removed_at_the_start(paths: GitPaths) -> None:
    whole = make_base(paths, "repo-1", "1", 100)
    layer = make_base(paths, "repo-1", "2", 10, whole)
    kept = make_base(paths, "repo-2", "3", 10)
    whole.path.rename(paths.scratch() / "gone")
    (paths.base("repo-2", "4" * 40) / "tree").mkdir(parents=True)
    BaseCache(paths).remove_broken()
    assert [base.path for base in BaseCache(paths).all()] == [kept.path]
    assert not layer.path.exists()


def test_files_that_come_and_go_while_they_are_counted_do_no_harm(tmp_path: Path) -> None:
    """As in a mirror that is being fetched into."""
    end = threading.Event()

    def come_and_go() -> None:
        while not end.is_set():
            folder = tmp_path / "incoming"
            folder.mkdir()
            for number in range(20):
                (folder / str(number)).touch()
            shutil.rmtree(folder)

    churning = threading.Thread(target=come_and_go)
    churning.start()
    try:
        for _ in range(300):
            walk_tree(tmp_path)
    finally:
        end.set()
        churning.join()


async def used(parts: GitParts) -> int:
    return sum(usage.bytes for usage in await asyncio.to_thread(parts.manager.budget.survey))


@pytest.mark.parametrize("count", [8, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
async def test_many_repositories_stay_inside_of_a_small_budget_and_what_is_used_is_untouched(
    tmp_path: Path, count: int
) -> None:
    remotes = []
    sample = Repo.sample(tmp_path / "work")
    sample.commit("large", {f"file-{number}": os.urandom(20_000) for number in range(20)})
    for number in range(count):
        sample.bare_clone(tmp_path / f"remote-{number}.git")
        remotes.append(Remote(f"repo-{number}", str(tmp_path / f"remote-{number}.git")))
    async with git_parts(tmp_path / "probe", tmp_path) as parts:
        await parts.prepare(remotes[0])
        one = await used(parts)
    budget = 4 * one
    async with git_parts(tmp_path / "home", tmp_path, disk_budget_bytes=budget, base_grace_seconds=0) as parts:
        pinned = await parts.prepare(remotes[0])
        (pinned.pins_path / "workspace-1").touch()
        before = {path: path.lstat().st_mtime_ns for path in pinned.layers[0].rglob("*")}
        for remote in remotes[1:]:
            base = await parts.prepare(remote)
            assert (base.layers[0] / "file-1").is_file()
            assert await used(parts) <= budget
        disk = parts.manager.budget
        assert disk.evicted_mirrors >= count - 5
        assert {path: path.lstat().st_mtime_ns for path in pinned.layers[0].rglob("*")} == before
        assert Repo(pinned.layers[0]).git("status", "--porcelain") == ""
        again = await parts.prepare(remotes[1])
        assert again.commit_id == sample.head()
        assert list(parts.paths.scratch_root.iterdir()) == []


async def test_a_mirror_too_large_for_the_budget_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    repo = Repo.sample(tmp_path / "work")
    repo.commit("large", {"file": os.urandom(200_000)})
    async with git_parts(tmp_path / "home", tmp_path, disk_budget_bytes=150_000) as parts:
        with pytest.raises(Exhausted) as refusal:
            await parts.prepare(Remote("repo-1", str(repo.path)))
        assert refusal.value.reason == "DISK_FULL"
        assert walk_tree(parts.paths.mirrors).bytes < 50_000
        assert list(parts.paths.scratch_root.iterdir()) == []


async def test_a_mirror_with_results_stays(tmp_path: Path) -> None:
    async with git_parts(tmp_path / "home", tmp_path) as parts:
        repo = Repo.sample(tmp_path / "work")
        base = await parts.prepare(Remote("repo-1", str(repo.path)))
        workspace = parts.workspace(base)
        workspace.agent.write({"new": "1"})
        result = await parts.manager.take_result("repo-1", "result-1", workspace.take_spec())
        assert result.changed
    async with git_parts(tmp_path / "home", tmp_path, disk_budget_bytes=1, base_grace_seconds=0) as parts:
        with pytest.raises(Exhausted):
            await parts.manager.budget.make_room(0)
        assert parts.manager.budget.evicted_bases == 1
        assert parts.manager.budget.evicted_mirrors == 0
        assert await parts.manager.changed_files("repo-1", base.commit_id, result.commit_id)
