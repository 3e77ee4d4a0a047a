"""Mirrors are packed anew while nobody waits, and lose nothing."""

import pytest

from services.git.model import Remote
from services.git.stores import repacking
from tests.kit.gitservice import GitParts
from tests.kit.repos import Repo
from tests.unit.git.conftest import push


async def test_a_mirror_of_many_packs_is_packed_anew_and_loses_nothing(
    parts: GitParts, remote: Remote, upstream: Repo, work: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repacking, "_MANY_PACKS", 4)
    for number in range(4):
        lost = push(work, upstream, number)
        base = await parts.prepare(remote)
        if number < 3:
            assert not await parts.manager.repacker.repack("repo-1")
    work.git("reset", "--quiet", "--hard", "HEAD~1")
    for number in (4, 5):
        push(work, upstream, number)
        await parts.prepare(remote)
    mirror = parts.paths.mirror("repo-1")
    before = len(list(mirror.glob("objects/pack/*.pack")))
    assert await parts.manager.repacker.repack("repo-1")
    assert len(list(mirror.glob("objects/pack/*.pack"))) < before / 2
    assert Repo(mirror).git("config", "extensions.preciousObjects") == "true"
    Repo(mirror).git("fsck", "--no-dangling")
    # No branch leads there any more, and a workspace of it may still be at work.
    assert Repo(mirror).git("cat-file", "-t", lost) == "commit"
    assert Repo(base.layers[0]).git("fsck", "--no-dangling") == ""
    assert list(parts.paths.scratch_root.iterdir()) == []
    assert (await parts.prepare(remote)).commit_id == work.head()
