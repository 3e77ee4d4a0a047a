"""What an agent leaves is counted before anything reads it."""

import os
import time
from pathlib import Path

import pytest

from services.common.errors import FailedPrecondition
from services.git.model import Remote, SnapshotSpec
from services.git.stores import results
from tests.kit.gitservice import GitParts, LayeredWorkspace, Workspace, git_parts

TREES = ("copied", "layered")


async def left_by_agent(parts: GitParts, remote: Remote, kind: str, script: str) -> Workspace | LayeredWorkspace:
    """Return a workspace in which an agent has run a script."""
    base = await parts.prepare(remote)
    if kind == "layered":
        layered = await parts.layered(base, mounted=False)
        await layered.agent(script)
        return layered
    workspace = parts.workspace(base)
    os.spawnlp(os.P_WAIT, "sh", "sh", "-ec", f"cd {workspace.tree.path} && {script}")
    return workspace


async def refusals(parts: GitParts, workspace: Workspace | LayeredWorkspace) -> list[FailedPrecondition]:
    """Return why it can neither be taken as a result nor kept as a snapshot."""
    errors = []
    snapshot = SnapshotSpec("snap-1", "repo-1", workspace.tree, workspace.base.commit_id, "what was left")
    for keep in (
        parts.manager.take_result("repo-1", "result-1", workspace.take_spec()),
        parts.manager.snapshot_tree(snapshot),
    ):
        with pytest.raises(FailedPrecondition) as failure:
            await keep
        errors.append(failure.value)
    assert list(parts.paths.scratch_root.iterdir()) == []
    return errors


@pytest.mark.parametrize("kind", TREES)
@pytest.mark.parametrize(
    "sparse", ["truncate -s 1T huge", "truncate -s 9G one; i=0; while [ $i -lt 9 ]; do ln one l$i; i=$((i+1)); done"]
)
async def test_a_sparse_file_is_refused_before_it_is_read(
    parts: GitParts, remote: Remote, kind: str, sparse: str
) -> None:
    workspace = await left_by_agent(parts, remote, kind, sparse)
    began = time.monotonic()
    errors = await refusals(parts, workspace)
    assert time.monotonic() - began < 10
    assert {error.reason for error in errors} == {"RESULT_TOO_LARGE"}
    assert "0 are on the disk" in errors[0].message
    assert str(parts.paths.home) not in errors[0].message


@pytest.mark.parametrize("kind", TREES)
async def test_files_count_however_small(tmp_path: Path, remote: Remote, kind: str) -> None:
    async with git_parts(tmp_path / "home", tmp_path, take_max_files=2000) as parts:
        workspace = await left_by_agent(parts, remote, kind, "mkdir many && cd many && seq 2100 | xargs touch")
        errors = await refusals(parts, workspace)
    assert {error.reason for error in errors} == {"RESULT_TOO_LARGE"}
    assert "2000 files" in errors[0].message


async def test_what_takes_too_long_says_so(parts: GitParts, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    """It used to end with NODE_LOST, because the caller gave up first."""
    workspace = await left_by_agent(parts, remote, "copied", "echo x > new")
    monkeypatch.setattr(results, "_TAKE_SECONDS", 0.05)
    errors = await refusals(parts, workspace)
    assert {error.reason for error in errors} == {"TAKE_FAILED"}
    assert "took longer than" in errors[0].message
