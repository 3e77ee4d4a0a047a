"""What `.gitmodules` says is bounded before it is read: whoever can push has written it, an agent too."""

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from services.common.caveats import CaveatKind
from services.common.ids import new_id
from services.git.gitmodules import LISTING_BYTES, absolute_url, parse_modules
from services.git.model import Base, Remote, ResultCommit
from services.git.worktree import sandboxed
from tests.kit.gitservice import GitParts, LayeredWorkspace, git_parts
from tests.kit.repos import Repo
from tests.kit.submodules import library, link


def section(name: str, url: str) -> str:
    return f'[submodule "{name}"]\n\tpath = {name}\n\turl = {url}\n'


ENDLESS: dict[str, Callable[[], str]] = {
    "a URL of dots": lambda: section("a", "./" * 4 * LISTING_BYTES),
    "many": lambda: "".join(section(str(number), "../x") for number in range(100_000)),
    "a long name": lambda: section("a" * (2 * LISTING_BYTES), "../x"),
}


@pytest.fixture(scope="module")
async def parts(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GitParts]:
    place = tmp_path_factory.mktemp("gitmodules")
    async with git_parts(place / "home", tmp_path_factory.getbasetemp()) as parts:
        yield parts


def test_a_url_that_is_too_long_to_be_one_is_none() -> None:
    long, usual = "./" * 2049, "../" + "x" * 4000
    listing = "\0".join(
        f"submodule.{name}.path\n{name}\0submodule.{name}.url\n{url}" for name, url in (("a", long), ("b", usual))
    )
    urls = {path: absolute_url(module.url, "https://h/app") for path, module in parse_modules(listing.encode()).items()}
    assert urls == {b"a": None, b"b": f"https://h/{'x' * 4000}"}


async def one_with_a_submodule(parts: GitParts, place: Path) -> tuple[Repo, Remote, Base]:
    app, lib = (library(place, each) for each in ("app", "lib"))
    link(app, "lib", "../lib", lib.head())
    remote = Remote(new_id("repo"), str(app.path))
    return app, remote, await parts.prepare(remote)


async def take(parts: GitParts, remote: Remote, workspace: LayeredWorkspace) -> ResultCommit:
    return await parts.manager.take_result(remote.repository_id, new_id("result"), workspace.take_spec())


@pytest.mark.slow
@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", ENDLESS)
async def test_what_it_says_holds_nobody_up(parts: GitParts, tmp_path: Path, name: str) -> None:
    app, remote, base = await one_with_a_submodule(parts, tmp_path)
    workspace = LayeredWorkspace(parts.workspace(base).tree, base)
    (workspace.tree.path / ".gitmodules").write_text(ENDLESS[name]())
    result = await take(parts, remote, workspace)
    assert result.commit_id != base.commit_id
    app.commit("as on an agent's branch", {".gitmodules": ENDLESS[name]()})
    again = await parts.prepare(remote)
    assert [caveat.paths for caveat in again.caveats] == [(b"lib",)]


@pytest.mark.slow
async def test_a_pipe_in_its_place_is_not_waited_for(
    parts: GitParts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandboxed, "ANSWER_SECONDS", 2.0)
    _, remote, base = await one_with_a_submodule(parts, tmp_path)
    workspace = LayeredWorkspace(parts.workspace(base).tree, base)
    (workspace.tree.path / ".gitmodules").unlink()
    os.mkfifo(workspace.tree.path / ".gitmodules")
    result = await take(parts, remote, workspace)
    assert CaveatKind.SPECIAL_FILES in {caveat.kind for caveat in result.caveats}
