"""Results go when their time is over, and stay as long as anybody may need them."""

import asyncio
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.engine import open_database, sqlite_url
from services.common.db.paging import Page
from services.common.errors import NotFound
from services.git.model import Remote, ResultRecord
from services.git.store import ResultRecords
from services.git.wire import to_proto
from tests.kit.gitservice import GitParts, Workspace, git_parts
from tests.kit.repos import Repo

DAYS_LATER = datetime.now(UTC) + timedelta(days=40)


def refs(parts: GitParts) -> list[str]:
    return Repo(parts.paths.result_store("repo-1")).git("for-each-ref", "--format=%(refname:lstrip=2)").split()


async def taken(parts: GitParts, remote: Remote, result_id: str = "result-1") -> tuple[Workspace, str]:
    workspace = parts.workspace(await parts.prepare(remote))
    workspace.agent.write({"new": os.urandom(1000)})
    result = await parts.manager.take_result("repo-1", result_id, workspace.take_spec())
    return workspace, result.commit_id


def remove(workspace: Workspace) -> None:
    shutil.rmtree(workspace.tree.path.parent)


async def test_a_result_goes_in_its_time_and_its_mirror_may_go_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = Repo.sample(tmp_path / "work")
    now = datetime.now(UTC)
    async with git_parts(tmp_path / "home", tmp_path, result_keep_hours=1) as parts:
        workspace, commit_id = await taken(parts, Remote("repo-1", str(repo.path)))
        usage = to_proto.usage_page_to_proto(await parts.manager.usage(), Page())
        assert [row.result_count for row in usage.repositories] == [1]
        remove(workspace)
        assert await parts.manager.remove_expired(now + timedelta(minutes=59)) == []
        assert await parts.manager.remove_expired(now + timedelta(hours=2)) == ["result-1"]
        assert refs(parts) == []
        usage = to_proto.usage_page_to_proto(await parts.manager.usage(), Page())
        assert ([row.result_count for row in usage.repositories], usage.expired_results) == ([0], 1)
        # Who was told of the commit a moment ago may still be at work with it.
        assert await parts.manager.changed_files("repo-1", workspace.base.commit_id, commit_id)
        monkeypatch.setattr("services.git.stores.results._UNNAMED_KEPT", "now")
        await parts.manager.remove_expired(now + timedelta(hours=20))
        with pytest.raises(NotFound) as failure:
            await parts.manager.changed_files("repo-1", workspace.base.commit_id, commit_id)
        assert failure.value.reason == "REVISION_NOT_FOUND"
    async with git_parts(tmp_path / "home", tmp_path, disk_budget_bytes=1, base_grace_seconds=0) as parts:
        await parts.manager.budget.make_room(0)
        assert parts.manager.budget.evicted_mirrors == 1


async def test_the_result_of_a_job_that_waits_stays_for_as_long_as_it_has_its_workspace(
    parts: GitParts, remote: Remote
) -> None:
    workspace, _ = await taken(parts, remote)
    for days in (40, 400):
        assert await parts.manager.remove_expired(datetime.now(UTC) + timedelta(days=days)) == []
    assert refs(parts) == ["result-1"]
    remove(workspace)
    assert await parts.manager.remove_expired(datetime.now(UTC) + timedelta(days=400, hours=2)) == ["result-1"]


async def test_a_result_that_was_taken_anew_has_its_time_anew(parts: GitParts, remote: Remote) -> None:
    first, _ = await taken(parts, remote)
    before = datetime.now(UTC) + timedelta(days=30)
    second, commit_id = await taken(parts, remote)
    remove(first)
    remove(second)
    assert await parts.manager.remove_expired(before) == []
    store = Repo(parts.paths.result_store("repo-1"))
    assert store.git("rev-parse", "refs/results/result-1").strip() == commit_id


async def test_what_was_taken_before_times_were_recorded_gets_one(parts: GitParts, remote: Remote) -> None:
    workspace, commit_id = await taken(parts, remote)
    remove(workspace)
    Repo(parts.paths.result_store("repo-1")).git("update-ref", "refs/results/older", commit_id)
    house = asyncio.create_task(parts.manager.run_maintenance())
    try:
        async with asyncio.timeout(60):
            while (await parts.manager.usage()).results != {"repo-1": 2}:
                await asyncio.sleep(0.02)
    finally:
        house.cancel()
        await asyncio.gather(house, return_exceptions=True)
    assert sorted(await parts.manager.remove_expired(DAYS_LATER)) == ["older", "result-1"]
    assert refs(parts) == []


async def test_a_sweep_that_was_cut_short_is_done_by_the_next(
    parts: GitParts, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, _ = await taken(parts, remote)
    remove(workspace)
    with monkeypatch.context() as patch:

        async def killed(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(ResultRecords, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            await parts.manager.remove_expired(DAYS_LATER)
    assert refs(parts) == []
    assert await parts.manager.remove_expired(DAYS_LATER) == ["result-1"]
    assert await parts.manager.remove_expired(DAYS_LATER) == []


async def test_a_sweep_does_a_part_and_what_is_in_use_keeps_nobody_from_going(
    parts: GitParts, remote: Remote, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await taken(parts, remote)
    monkeypatch.setattr("services.git.stores.retention._AT_ONCE", 2)
    engine: AsyncEngine = open_database(sqlite_url(parts.paths.root / "git.db"))
    try:
        store = ResultRecords(engine)
        for number in range(6):
            tree = tmp_path if number < 3 else tmp_path / "gone"
            over = DAYS_LATER - timedelta(days=5, seconds=-number)
            await store.save(ResultRecord("repo-1", f"r-{number}", tree, over))
        gone = [await parts.manager.remove_expired(DAYS_LATER) for _ in range(4)]
    finally:
        await engine.dispose()
    assert gone == [[], [], ["r-3", "r-4"], ["r-5"]]
