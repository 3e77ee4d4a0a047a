"""A remote whose objects are damaged or missing is told from one that is away: no second try helps."""

from pathlib import Path

import pytest

from services.common.errors import FailedPrecondition
from services.common.ids import new_id
from services.git.model import Remote
from tests.kit.githttp import git_server
from tests.kit.gitservice import git_parts
from tests.kit.repos import Repo

OBJECTS = {"a file's": "HEAD:README", "a tree": "HEAD:src", "the tree": "HEAD^{tree}", "a parent": "HEAD~1"}
DAMAGES = {"missing": None, "empty": b"", "garbage": b"garbage" * 100}


@pytest.mark.parametrize("content", [pytest.param(DAMAGES[name], id=name) for name in DAMAGES])
@pytest.mark.parametrize(
    "name",
    [pytest.param(at, id=what, marks=() if what == "a file's" else pytest.mark.slow) for what, at in OBJECTS.items()],
)
@pytest.mark.parametrize("over_http", [False, pytest.param(True, marks=pytest.mark.slow)])
async def test_it_is_said(tmp_path: Path, name: str, content: bytes | None, over_http: bool) -> None:
    upstream = Repo.sample(tmp_path / "root" / "repo.git")
    upstream.git("tag", "--delete", "v1")  # what a ref itself names is not there at all, when it is missing
    object_id = upstream.git("rev-parse", name)
    path = upstream.path / ".git" / "objects" / object_id[:2] / object_id[2:]
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with git_server(tmp_path / "root", "token") as server:
        url = server.url("repo.git/.git") if over_http else str(upstream.path)
        remote = Remote(new_id("repo"), url, "token" if over_http else "")
        async with git_parts(tmp_path / "home", tmp_path, allow_loopback_http=True) as parts:
            with pytest.raises(FailedPrecondition) as failure:
                await parts.prepare(remote)
            assert failure.value.reason == "REMOTE_MALFORMED", failure.value
            assert object_id[2:] in str(failure.value)
            assert "Enumerating" not in str(failure.value)
            assert not parts.paths.mirror(remote.repository_id).exists()
