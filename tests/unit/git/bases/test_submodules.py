"""Submodules are checked out with their repository: by the rules of any remote, and never at the price of the job."""

import json
import os
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from services.common.caveats import CaveatKind
from services.common.errors import FailedPrecondition
from services.common.ids import new_id
from services.git.bases.submodules import mirror_id
from services.git.disk.base_cache import BaseCache
from services.git.disk.budget import DiskBudget, DiskLimits
from services.git.gitmodules import absolute_url, name_complaint, origin
from services.git.model import Base, Remote, StartPoint
from tests.kit.certificates import Authority
from tests.kit.githttp import Fault, git_server
from tests.kit.gitservice import GitParts, git_parts
from tests.kit.repos import Repo
from tests.kit.submodules import library, link

MISSING = CaveatKind.EMPTY_SUBMODULES
Cases = dict[str, Callable[[Path], Repo]]


def app_with(place: Path, path: str = "lib", url: str = "../lib", name: str = "") -> Repo:
    """Return a repository that has the library beside it as a submodule."""
    app, lib = library(place, "app"), library(place, "lib")
    link(app, path, url, lib.head(), name)
    return app


def nested(place: Path) -> Repo:
    inner, lib, app = (library(place, name) for name in ("inner", "lib", "app"))
    link(lib, "deep/inner", "../inner", inner.head())
    link(app, "lib", "../lib", lib.head())
    return app


def on_no_branch(place: Path) -> Repo:
    app, lib = library(place, "app"), library(place, "lib")
    lib.git("checkout", "--quiet", "--detach")
    commit = lib.commit("on no branch", {"lib": "this is lib\n", "beside": "x"})
    lib.git("update-ref", "refs/changes/1", commit)
    lib.git("config", "uploadpack.allowAnySHA1InWant", "true")
    link(app, "lib", "../lib", commit)
    return app


def moved_in_the_tree(place: Path) -> Repo:
    app = app_with(place, "old")
    app.git("mv", "old", "lib")
    app.commit("moved")
    return app


@pytest.fixture(scope="module")
async def many(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GitParts]:
    place = tmp_path_factory.mktemp("many")
    async with git_parts(place / "home", tmp_path_factory.getbasetemp()) as parts:
        yield parts


HAD: Cases = {
    "relative": app_with,
    "by its path on this machine": lambda place: app_with(place, url=str(place / "lib")),
    "by a file URL": lambda place: app_with(place, url=f"file://{place}/lib"),
    "nested": nested,
    "on no branch": on_no_branch,
    "moved in the tree": moved_in_the_tree,
    "with a name of parts": lambda place: app_with(place, name="third party/a.b/lib"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HAD)
async def test_they_are_checked_out_as_git_does(many: GitParts, tmp_path: Path, name: str) -> None:
    app = HAD[name](tmp_path / "server")
    base = await many.prepare(Remote(new_id("repo"), str(app.path)))
    assert base.caveats == ()
    expected = tmp_path / "expected"
    app.git("-c", "protocol.file.allow=always", "clone", "--quiet", "--recursive", app.path, expected)
    assert files(base.layers[0]) == files(expected)
    workspace = await many.layered(base, mounted=False)
    assert await workspace.agent("git status --porcelain; git submodule foreach -q --recursive git status -s") == ""
    status = "submodule", "status", "--recursive"
    assert Repo(base.layers[0]).git(*status) == Repo(expected).git(*status)
    # One git knows how to go on with: it finds nothing to do.
    await workspace.agent("git submodule --quiet update --init --recursive")


def files(tree: Path) -> dict[str, bytes]:
    found = (path for path in tree.rglob("*") if path.is_file() and ".git" not in path.relative_to(tree).parts)
    return {str(path.relative_to(tree)): path.read_bytes() for path in found}


def elsewhere(url: str) -> Callable[[Path], Repo]:
    return lambda place: app_with(place, url=url)


def by_name(name: str) -> Callable[[Path], Repo]:
    return lambda place: app_with(place, name=name)


def without(place: Path) -> Repo:
    app, lib = library(place, "app"), library(place, "lib")
    link(app, "lib", "../lib", "1" * 40)
    assert lib
    return app


def gone(place: Path) -> Repo:
    app = app_with(place)
    shutil.rmtree(place / "lib")
    return app


def inside_another(place: Path) -> Repo:
    app = app_with(place, "a", name="a")
    link(app, "lib", "../lib", Repo(place / "lib").head(), "a/hooks")
    return app


def in_our_data(place: Path) -> Repo:
    (many,) = place.parents[1].glob("many0")
    return app_with(place, url=str(many / "home/git/mirrors/repo-1.git"))


NOT_HAD: dict[str, tuple[Callable[[Path], Repo], str]] = {
    "gone": (gone, "REMOTE_NOT_FOUND"),
    "a commit that nobody has": (without, "has no commit 1111"),
    "no URL": (elsewhere(""), "its URL in .gitmodules leads nowhere"),
    "above the server": (elsewhere("../" * 40 + "lib"), "leads nowhere"),
    "a command": (elsewhere("ext::touch /tmp/canary"), "its URL must not"),
    "a password": (elsewhere("https://user:word@host.example/lib"), "its URL must not hold a user name"),
    "a private address": (elsewhere("https://10.1.2.3/lib"), "ADDRESS_NOT_ALLOWED"),
    "plain http": (elsewhere("http://host.example/lib"), "its URL must be https"),
    "outside of the roots": (elsewhere("/etc"), "not under the configured roots"),
    "our own data": (
        in_our_data,
        "inside Boatyard",
    ),
    "a name of ours": (by_name("a/.git/hooks"), "its name is not"),
    "an empty part": (by_name("a//b"), "its name is not"),
    "a name inside another": (inside_another, "or lies inside"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NOT_HAD)
async def test_one_that_cannot_be_had_is_named_with_the_reason(many: GitParts, tmp_path: Path, name: str) -> None:
    make, why = NOT_HAD[name]
    app = make(tmp_path / "server")
    base = await many.prepare(Remote(new_id("repo"), str(app.path)))
    (caveat,) = base.caveats
    assert (caveat.kind, caveat.paths) == (MISSING, (b"lib",))
    assert caveat.detail.startswith("lib: ")
    assert why in caveat.detail
    assert list((base.layers[0] / "lib").iterdir()) == []
    assert not (base.layers[0] / ".git/modules/lib").exists()


@pytest.mark.slow
async def test_an_address_that_only_a_branch_names_gets_no_rights(parts: GitParts, tmp_path: Path) -> None:
    app, lib = library(tmp_path / "server", "app"), library(tmp_path / "server", "lib")
    app.git("checkout", "--quiet", "-b", "mine")
    link(app, "lib", "../lib", lib.head())
    app.git("checkout", "--quiet", "main")
    remote = Remote("repo-1", str(app.path))
    assert "default branch" in reason(await parts.prepare(remote, StartPoint(b"mine")))
    app.git("merge", "--quiet", "mine")
    assert (await parts.prepare(remote, StartPoint(b"mine"))).caveats == ()


@pytest.mark.slow
async def test_an_address_that_an_agent_names_is_not_asked(parts: GitParts, tmp_path: Path) -> None:
    place = tmp_path / "server"
    app, other = app_with(place), library(place, "other")
    remote = Remote("repo-1", str(app.path))
    workspace = await parts.layered(await parts.prepare(remote), mounted=False)
    url = "https://host.example/secret"
    await workspace.agent(
        f"git config -f .gitmodules submodule.x.path x; git config -f .gitmodules submodule.x.url {url}; mkdir x;"
        f"git update-index --add --cacheinfo 160000,{other.head()},x; git add .gitmodules; git commit -qm x"
    )
    result = await parts.manager.take_result("repo-1", "result-1", workspace.take_spec())
    # As an agent of a version before could have committed it.
    store = Repo(parts.paths.result_store("repo-1"))
    kept = [line for line in store.git("ls-tree", result.commit_id).splitlines() if not line.endswith("\tx")]
    listing = "\n".join([*kept, f"160000 commit {other.head()}\tx"])
    tree = store.git("mktree", "--missing", stdin=listing.encode())
    commit = store.git("commit-tree", "-m", "x", "-p", result.commit_id, tree)
    base = await parts.prepare(remote, StartPoint(result_commit_id=commit))
    assert "its agent's" in reason(base)
    assert (base.layers[0] / "lib" / "lib").exists()


def reason(base: Base) -> str:
    (caveat,) = base.caveats
    assert caveat.kind is MISSING
    return caveat.detail


async def test_a_token_goes_to_the_submodules_of_its_server_alone(tmp_path: Path) -> None:
    app, lib = library(tmp_path, "app"), library(tmp_path, "lib")
    with git_server(tmp_path / "served", "canary-1") as server, git_server(tmp_path / "served", "canary-2") as other:
        link(app, "lib", "../lib", lib.head())
        link(app, "other", other.url("lib"), lib.head())
        for repo in (app, lib):
            repo.bare_clone(tmp_path / "served" / repo.path.name)
        async with git_parts(tmp_path / "home", allow_loopback_http=True) as parts:
            base = await parts.prepare(Remote("repo-1", server.url("app"), "canary-1"))
            # Another repository of the same URL has no part in what this one may see.
            with pytest.raises(FailedPrecondition, match="wants a token"):
                await parts.prepare(Remote("repo-2", server.url("lib")))
    assert (base.layers[0] / "lib/lib").read_text() == "this is lib\n"
    (caveat,) = base.caveats
    assert caveat.paths == (b"other",)
    assert "REMOTE_ACCESS_DENIED" in caveat.detail


async def test_the_ca_of_a_repositorys_server_vouches_for_submodules_there(tmp_path: Path) -> None:
    app, lib = library(tmp_path, "app"), library(tmp_path, "lib")
    link(app, "lib", "../lib", lib.head())
    for repo in (app, lib):
        repo.bare_clone(tmp_path / "served" / repo.path.name)
    authority = Authority(tmp_path / "ca")
    certificate = authority.issue("127.0.0.1", into="server")
    with git_server(tmp_path / "served", "canary-1", certificate) as server:
        async with git_parts(tmp_path / "home", allow_networks=("127.0.0.0/8",)) as parts:
            remote = Remote("repo-1", server.url("app"), "canary-1", authority.file.read_text())
            base = await parts.prepare(remote)
    assert base.caveats == ()
    assert (base.layers[0] / "lib/lib").read_text() == "this is lib\n"


@pytest.mark.slow
async def test_a_server_that_is_away_takes_nothing_that_is_here_and_nothing_of_others(tmp_path: Path) -> None:
    app, lib = library(tmp_path, "app"), library(tmp_path, "lib")
    link(app, "lib", "../lib", lib.head())
    for repo in (app, lib):
        repo.bare_clone(tmp_path / "served" / repo.path.name)
    with git_server(tmp_path / "served", "canary-1") as server:
        async with git_parts(tmp_path / "home", allow_loopback_http=True) as parts:
            remote = Remote("repo-1", server.url("app"), "canary-1")
            await parts.prepare(remote)
            link(app, "more", "../more", lib.head())
            app.git("push", "--quiet", str(tmp_path / "served/app"), "HEAD")
            server.faults = [Fault("/more", 503)]
            base = await parts.prepare(remote)
            assert "REMOTE_UNREACHABLE" in reason(base)
            again = await parts.prepare(remote)
            assert "has not answered in the last minutes" in reason(again)
            assert (again.layers[0] / "lib/lib").exists()
            other = await parts.prepare(replace(remote, repository_id="repo-2"))
            assert "has not answered" not in reason(other)
            assert (other.layers[0] / "lib/lib").exists()


@pytest.mark.slow
async def test_a_repository_elsewhere_leads_to_no_file_here(tmp_path: Path) -> None:
    app, lib = library(tmp_path, "app"), library(tmp_path, "lib")
    with git_server(tmp_path / "served", "canary-1") as server:
        link(app, "lib", str(lib.path), lib.head())
        app.bare_clone(tmp_path / "served/app")
        async with git_parts(tmp_path / "home", tmp_path, allow_loopback_http=True) as parts:
            base = await parts.prepare(Remote("repo-1", server.url("app"), "canary-1"))
    assert "leads to this machine" in reason(base)


BOUNDS = {
    "how many": ({"max_submodules": 1}, "BOATYARD_GIT_MAX_SUBMODULES"),
    "none at all": ({"max_submodules": 0}, "BOATYARD_GIT_MAX_SUBMODULES"),
    "how much": ({"submodules_max_bytes": 1 << 20}, "BOATYARD_GIT_SUBMODULES_MAX_BYTES"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOUNDS)
async def test_what_they_may_take_is_bounded(tmp_path: Path, name: str) -> None:
    settings, told = BOUNDS[name]
    place = tmp_path / "server"
    app, big = app_with(place), library(place, "zz")
    big.commit("big", {"zz": os.urandom(2 << 20)})
    link(app, "zz", "../zz", big.head())
    async with git_parts(tmp_path / "home", tmp_path, **settings) as parts:
        base = await parts.prepare(Remote("repo-1", str(app.path)))
    assert told in reason(base) or "REMOTE_TOO_LARGE" in reason(base)
    assert (base.layers[0] / "lib/lib").exists() == (name != "none at all")
    assert list((base.layers[0] / "zz").iterdir()) == []


@pytest.mark.slow
async def test_beyond_what_they_may_take_none_is_fetched(tmp_path: Path) -> None:
    place = tmp_path / "server"
    app = library(place, "app")
    for number in range(5):
        big = library(place, f"big-{number}")
        link(app, f"lib-{number}", f"../big-{number}", big.commit("big", {"big": os.urandom(700 << 10)}))
    async with git_parts(tmp_path / "home", tmp_path, submodules_max_bytes=1 << 20) as parts:
        told = reason(await parts.prepare(Remote("repo-1", str(app.path))))
        fetched = [
            each
            for number in range(5)
            if (each := parts.paths.mirror(mirror_id("repo-1", str(place / f"big-{number}")))).exists()
        ]
    assert "lib-4: all together have more than 1 MiB" in told
    assert len(fetched) == 2


@pytest.mark.slow
async def test_those_that_cannot_be_had_count_too(tmp_path: Path) -> None:
    app = library(tmp_path / "server", "app")
    for number in range(3):
        link(app, f"lib-{number}", f"../gone-{number}", app.head())
    async with git_parts(tmp_path / "home", tmp_path, max_submodules=2) as parts:
        told = reason(await parts.prepare(Remote("repo-1", str(app.path))))
    assert "lib-2: more than 2 are not fetched" in told
    assert told.count("are not fetched") == 1


@pytest.mark.slow
async def test_a_chain_without_an_end_ends(parts: GitParts, tmp_path: Path) -> None:
    place = tmp_path / "server"
    app = library(place, "app")
    below = library(place, "lib-0")
    for number in range(1, 11):
        repo = library(place, f"lib-{number}")
        link(repo, "in", f"../lib-{number - 1}", below.head())
        below = repo
    link(app, "in", "../lib-10", below.head())
    assert "nested deeper than" in reason(await parts.prepare(Remote("repo-1", str(app.path))))


@pytest.mark.slow
async def test_the_same_commit_is_the_same_tree_and_one_that_lacked_something_is_not(
    parts: GitParts, tmp_path: Path
) -> None:
    place = tmp_path / "server"
    app = app_with(place)
    remote = Remote("repo-1", str(app.path))
    # As the version before kept it: without content.
    before = parts.paths.base("repo-1", app.head())
    (before / "tree" / "lib").mkdir(parents=True)
    (before / "pins").mkdir()
    (before / "about").write_text(json.dumps({"below": None, "bytes": 1, "inodes": 1}))
    (before / "notes").write_text("[]")
    shutil.move(place / "lib", place / "away")
    lacking = await parts.prepare(remote)
    assert "REMOTE_NOT_FOUND" in reason(lacking)
    shutil.move(place / "away", place / "lib")
    first, second = [await parts.prepare(remote) for _ in range(2)]
    assert first == second
    assert len({before / "tree", lacking.layers[0], first.layers[0]}) == 3
    # What is there once is there without its server too.
    shutil.rmtree(place / "lib")
    assert await parts.prepare(remote) == first


@pytest.mark.slow
async def test_a_mirror_stays_as_long_as_a_base_borrows_from_it(parts: GitParts, tmp_path: Path) -> None:
    base = await parts.prepare(Remote("repo-1", str(app_with(tmp_path / "server").path)))
    mirror = parts.paths.mirror(mirror_id("repo-1", str(tmp_path / "server/lib")))
    assert base.read_only_paths == (parts.paths.mirror("repo-1") / "objects", mirror / "objects")
    budget = DiskBudget(parts.paths, BaseCache(parts.paths), DiskLimits(budget_bytes=1, grace_seconds=0))
    pin = base.pins_path / "somebody"
    pin.touch()
    await budget.evict()
    assert mirror.is_dir()
    pin.unlink()
    await budget.evict()
    assert not mirror.is_dir()


@pytest.mark.slow
async def test_a_near_commit_is_a_layer_with_the_same_submodules(parts: GitParts, tmp_path: Path) -> None:
    app = app_with(tmp_path / "server")
    app.commit("many", {f"many/{number}": f"{number}\n" for number in range(600)})
    remote = Remote("repo-1", str(app.path))
    await parts.prepare(remote)
    app.commit("one more", {"many/1": "changed\n"})
    base = await parts.prepare(remote)
    assert len(base.layers) == 2
    workspace = await parts.layered(base, mounted=False)
    told = await workspace.agent("git status --porcelain; git -C lib rev-parse HEAD; cat lib/lib; git -C lib status -s")
    assert told == f"{Repo(tmp_path / 'server/lib').head()}\nthis is lib\n"


URLS = [
    ("https://h/org/app.git", "../lib.git", "https://h/org/lib.git"),
    ("https://h/org/app.git/", "./lib.git", "https://h/org/app.git/lib.git"),
    ("https://h/org/app", "../../x/lib", "https://h/x/lib"),
    ("https://h/app", "../lib", "https://h/lib"),
    ("https://h/app", "../../lib", None),
    ("git@h:org/app.git", "../lib.git", "git@h:org/lib.git"),
    ("git@h:app.git", "../lib.git", "git@h:lib.git"),
    ("git@h:app.git", "../../lib.git", None),
    ("ssh://git@h:22/org/app", ".././../lib", "ssh://git@h:22/lib"),
    ("/srv/app", "../lib", "/srv/lib"),
    ("file:///srv/app", "../lib", "file:///srv/lib"),
    ("https://h/app", "https://i/lib", "https://i/lib"),
    ("https://h/app", "", None),
]


@pytest.mark.parametrize(("parent", "url", "expected"), URLS)
def test_relative_urls(parent: str, url: str, expected: str | None) -> None:
    assert absolute_url(url, parent) == expected
    if expected and url.startswith("."):
        assert origin(expected) == origin(parent)


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/x", "-x", ".git", "a/.GIT", "", "a\nb", "x" * 300, "lib/", "\ufffd"]
)
def test_names_that_would_lead_elsewhere(name: str) -> None:
    assert name_complaint(name, [])
