"""Work without a remote: it is compared with a commit without files, and its results and snapshots are kept."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from services.common.errors import FailedPrecondition, NotFound
from services.common.ids import NO_REMOTE, new_id
from services.git.empty import EMPTY_COMMIT_ID
from services.git.model import SnapshotSpec, TakeSpec, WorkingTree
from tests.kit.gitservice import SIGNATURE, GitParts, git_parts
from tests.kit.layout import workspace_trees
from tests.kit.uids import give_to_agents

KEPT_UNDER = f"{NO_REMOTE}a"


@pytest_asyncio.fixture
async def parts(tmp_path: Path) -> AsyncIterator[GitParts]:
    async with git_parts(tmp_path) as parts:
        yield parts


@pytest.fixture
def tree(parts: GitParts) -> WorkingTree:
    path = workspace_trees(parts.paths.home) / new_id("workspace") / "tree"
    (path / ".boatyard").mkdir(parents=True)
    (path / ".boatyard" / "input.json").write_text("{}")
    return WorkingTree(path)


async def test_a_tree_that_began_without_files_is_taken_compared_and_made_again(
    parts: GitParts, tree: WorkingTree
) -> None:
    base = await parts.manager.prepare_empty_base(KEPT_UNDER)
    assert (base.commit_id, base.branch) == (EMPTY_COMMIT_ID, b"")
    assert [path.name for path in base.layers[0].iterdir()] == [".git"]
    spec = TakeSpec(tree, base.commit_id, "nothing", SIGNATURE)
    untouched = await parts.manager.take_result(KEPT_UNDER, "exec-1", spec)
    assert (untouched.changed, untouched.commit_id) == (False, EMPTY_COMMIT_ID)
    (tree.path / "made").write_text("x\n")
    taken = await parts.manager.take_result(KEPT_UNDER, "exec-1", spec)
    assert taken.changed
    files = await parts.manager.changed_files(KEPT_UNDER, EMPTY_COMMIT_ID, taken.commit_id)
    assert [file.path for file in files] == [b"made"]
    again = await parts.manager.prepare_empty_base(KEPT_UNDER, taken.commit_id)
    assert (again.layers[0] / "made").read_text() == "x\n"
    snapshot = await parts.manager.snapshot_tree(SnapshotSpec("snap-1", KEPT_UNDER, tree, EMPTY_COMMIT_ID, "why"))
    assert snapshot.commit_id != EMPTY_COMMIT_ID
    with pytest.raises(NotFound):
        await parts.manager.prepare_empty_base(f"{NO_REMOTE}b", taken.commit_id)


async def test_a_tree_that_is_closed_to_us_is_said_to_be(parts: GitParts, tree: WorkingTree) -> None:
    (tree.path / "made").write_text("x\n")
    give_to_agents(tree.path)
    tree.path.chmod(0)
    try:
        with pytest.raises(FailedPrecondition) as failure:
            await parts.manager.take_result(KEPT_UNDER, "exec-1", TakeSpec(tree, EMPTY_COMMIT_ID, "m", SIGNATURE))
        assert failure.value.reason == "TAKE_FAILED"
    finally:
        tree.path.chmod(0o700)


async def test_a_repository_that_the_agent_made_there_is_taken_as_files(parts: GitParts, tree: WorkingTree) -> None:
    parts_repo = tree.path / ".git"
    parts_repo.mkdir()
    (parts_repo / "HEAD").write_text("ref: refs/heads/main\n")
    (tree.path / "sub" / ".git").mkdir(parents=True)
    (tree.path / "sub" / "file").write_text("x")
    spec = TakeSpec(tree, EMPTY_COMMIT_ID, "made", SIGNATURE)
    taken = await parts.manager.take_result(KEPT_UNDER, "exec-1", spec)
    files = await parts.manager.changed_files(KEPT_UNDER, EMPTY_COMMIT_ID, taken.commit_id)
    assert [file.path for file in files] == [b"sub/file"]
