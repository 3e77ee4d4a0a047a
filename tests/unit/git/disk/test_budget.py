"""The disk budget: what nobody uses goes first, what somebody uses never, and too much is refused beforehand."""

import asyncio
import os
import shutil
import threading
from pathlib import Path

import pytest

from services.common.errors import Exhausted
from services.common.settings import Home
from services.git.bases.racy_index import look
from services.git.disk.base_cache import Shelf, Shelved
from services.git.disk.budget import Disk, DiskBounds
from services.git.model import Remote
from services.git.paths import Places
from tests.kit.gitservice import GitParts, git_parts
from tests.kit.repos import Repo

HOUR = 3600.0


@pytest.fixture
def places(tmp_path: Path) -> Places:
    places = Places(Home(tmp_path / "home"))
    places.make()
    return places


def make_base(places: Places, repository_id: str, letter: str, size: int, below: Shelved | None = None) -> Shelved:
    """Put a base of a made-up size on the shelf, last used as many hours ago as its letter says."""
    shelf = Shelf(places)
    building = places.scratch() / "base"
    (building / "tree").mkdir(parents=True)
    place = places.base(repository_id, letter * 40)
    shelf.put(building, place, (size, 1), below)
    used = 1_000_000_000 - HOUR * int(letter, 16)
    for path in (place / "pins", place):
        os.utime(path, (used, used))
    found = shelf.find(place)
    assert found
    return found


def disk(places: Places, **bounds: float) -> Disk:
    return Disk(places, Shelf(places), DiskBounds(**bounds))


async def test_what_was_used_least_lately_goes_first(places: Places) -> None:
    bases = [make_base(places, "repo-1", letter, 100) for letter in "123"]
    async with disk(places, budget_bytes=350).room(120):
        assert [base.place.exists() for base in bases] == [True, True, False]


async def test_what_is_in_use_or_below_it_or_was_handed_out_just_now_stays(places: Places) -> None:
    whole = make_base(places, "repo-1", "9", 100)
    layer = make_base(places, "repo-1", "8", 10, whole)
    fresh = make_base(places, "repo-2", "7", 100)
    (layer.pins_path / "workspace-1").touch()
    os.utime(fresh.place)
    keeper = disk(places, budget_bytes=250)
    with pytest.raises(Exhausted) as refusal:
        async with keeper.room(100):
            pass
    assert refusal.value.reason == "DISK_FULL"
    assert "delete workspaces" in refusal.value.message
    assert all(base.place.exists() for base in (whole, layer, fresh))
    (layer.pins_path / "workspace-1").unlink()
    os.utime(layer.pins_path, (0, 0))  # it was let go long ago
    async with disk(places, budget_bytes=250, grace_seconds=0).room(150):
        assert [base.place.exists() for base in (whole, layer, fresh)] == [False, False, True]


async def test_room_is_kept_for_what_is_being_made(places: Places) -> None:
    keeper = disk(places, budget_bytes=100)
    async with keeper.room(60) as room:
        with pytest.raises(Exhausted):
            await keeper.reserve(60)
        await room.resize(10)
        async with keeper.room(60):
            pass
    async with keeper.room(100):
        pass


async def test_a_repository_that_something_is_made_from_is_left_alone(places: Places) -> None:
    base = make_base(places, "repo-1", "1", 100)
    shelf = Shelf(places)
    keeper = Disk(places, shelf, DiskBounds(budget_bytes=150))
    with shelf.holding("repo-1"), pytest.raises(Exhausted):
        await keeper.reserve(100)
    assert base.place.exists()
    assert await keeper.reserve(100) == 100
    assert not base.place.exists()


async def test_without_a_budget_nothing_goes_and_a_full_disk_is_refused(places: Places) -> None:
    base = make_base(places, "repo-1", "1", 100)
    async with disk(places).room(1000):
        assert base.place.exists()
    with pytest.raises(Exhausted):
        await disk(places, min_free_bytes=1 << 60).reserve(0)


def test_half_made_bases_and_those_that_lie_on_nothing_are_removed_at_the_start(places: Places) -> None:
    whole = make_base(places, "repo-1", "1", 100)
    layer = make_base(places, "repo-1", "2", 10, whole)
    kept = make_base(places, "repo-2", "3", 10)
    whole.place.rename(places.scratch() / "gone")
    (places.base("repo-2", "4" * 40) / "tree").mkdir(parents=True)
    Shelf(places).mend()
    assert [base.place for base in Shelf(places).all()] == [kept.place]
    assert not layer.place.exists()


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
            look(tmp_path)
    finally:
        end.set()
        churning.join()


async def used(parts: GitParts) -> int:
    return sum(usage.bytes for usage in await asyncio.to_thread(parts.manager.disk.survey))


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
        disk = parts.manager.disk
        assert disk.evicted_mirrors >= count - 5
        assert {path: path.lstat().st_mtime_ns for path in pinned.layers[0].rglob("*")} == before
        assert Repo(pinned.layers[0]).git("status", "--porcelain") == ""
        again = await parts.prepare(remotes[1])
        assert again.commit_id == sample.head()
        assert list(parts.places.scratch_root.iterdir()) == []


async def test_a_mirror_too_large_for_the_budget_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    repo = Repo.sample(tmp_path / "work")
    repo.commit("large", {"file": os.urandom(200_000)})
    async with git_parts(tmp_path / "home", tmp_path, disk_budget_bytes=150_000) as parts:
        with pytest.raises(Exhausted) as refusal:
            await parts.prepare(Remote("repo-1", str(repo.path)))
        assert refusal.value.reason == "DISK_FULL"
        assert look(parts.places.mirrors).bytes < 50_000
        assert list(parts.places.scratch_root.iterdir()) == []


async def test_a_mirror_with_results_stays(tmp_path: Path) -> None:
    async with git_parts(tmp_path / "home", tmp_path) as parts:
        repo = Repo.sample(tmp_path / "work")
        base = await parts.prepare(Remote("repo-1", str(repo.path)))
        workspace = parts.workspace(base)
        workspace.agent.write({"new": "1"})
        result = await parts.manager.take_result("repo-1", "result-1", workspace.order())
        assert result.changed
    async with git_parts(tmp_path / "home", tmp_path, disk_budget_bytes=1, base_grace_seconds=0) as parts:
        with pytest.raises(Exhausted):
            await parts.manager.disk.reserve(0)
        assert parts.manager.disk.evicted_bases == 1
        assert parts.manager.disk.evicted_mirrors == 0
        assert await parts.manager.changed_files("repo-1", base.commit_id, result.commit_id)
