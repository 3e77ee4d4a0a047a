"""A remote on this machine is its own user's, shows nothing but itself, and runs nothing of its own."""

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from services.common.errors import FailedPrecondition, NotFound, ServiceError
from services.git.app import find_git
from services.git.gitcmd import Command, Git, Invocation
from services.git.model import CloneSpec, Remote, StartPoint
from services.git.remote.far_side import FarSide
from services.git.remote.file_repository import OTHERS, FileRoots, opened
from tests.kit.gitservice import GitParts, git_parts
from tests.kit.repos import Repo
from tests.unit.git.test_hostile import HOOKS, script

OTHER = 1234
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")


def give_away(path: Path) -> None:
    """Give all of a path to another user."""
    for each in (path, *path.rglob("*")):
        os.chown(each, OTHER, OTHER, follow_symlinks=False)


@pytest.fixture
def roots(tmp_path: Path) -> FileRoots:
    """The service's own user's repositories may lie below `mine`."""
    return FileRoots((tmp_path / "mine",), (), tmp_path / "home")


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[GitParts]:
    async with git_parts(tmp_path / "home", tmp_path / "mine") as parts:
        yield parts


@pytest.fixture
async def git(tmp_path: Path) -> Git:
    (tmp_path / "empty").mkdir()
    return await find_git(tmp_path / "empty")


@pytest.fixture
def mine(tmp_path: Path) -> Repo:
    return Repo.sample(tmp_path / "work").bare_clone(tmp_path / "mine" / "remote.git")


@pytest.fixture
def private(tmp_path: Path) -> Repo:
    """A repository outside of the roots."""
    return Repo.sample(tmp_path / "elsewhere")


def alternates(repo: Repo, *objects: Path) -> None:
    (repo.path / "objects" / "info" / "alternates").write_text("".join(f"{path}\n" for path in objects))


def lends(repo: Repo, private: Repo) -> None:
    alternates(repo, private.path / ".git" / "objects")


def lends_by_another(repo: Repo, private: Repo) -> None:
    lender = repo.bare_clone(repo.path.parent / "lender.git")
    alternates(lender, private.path / ".git" / "objects")
    alternates(repo, lender.path / "objects")


def lends_by_a_relative_path(repo: Repo, private: Repo) -> None:
    alternates(repo, Path(os.path.relpath(private.path / ".git" / "objects", repo.path / "objects")))


def names_a_directory(repo: Repo, private: Repo) -> None:
    (repo.path / ".git").write_text(f"gitdir: {private.path}/.git\n")


def is_a_link(repo: Repo, private: Repo) -> None:
    (repo.path / ".git").symlink_to(private.path / ".git")


def has_its_common_part_elsewhere(repo: Repo, private: Repo) -> None:
    (repo.path / "commondir").write_text(f"{private.path}/.git\n")


def linked(name: str) -> Callable[[Repo, Repo], None]:
    """Put a link to the private repository in a part's place."""

    def plant(repo: Repo, private: Repo) -> None:
        if (repo.path / name).exists():
            (repo.path / name).rename(repo.path / "aside")
        (repo.path / name).symlink_to(private.path / ".git" / name)

    return plant


def links_its_packs(repo: Repo, private: Repo) -> None:
    (repo.path / "objects" / "pack").rename(repo.path / "aside")
    (repo.path / "objects" / "pack").symlink_to(private.path / ".git" / "objects" / "pack")


OUTWARD = [lends, lends_by_another, lends_by_a_relative_path, names_a_directory, is_a_link,
           has_its_common_part_elsewhere, linked("objects"), linked("refs"), linked("HEAD"), linked("config"),
           linked("logs"), linked("info"), links_its_packs]  # fmt: skip
UNREAD = ("hooks", "modules", "lfs")


@pytest.mark.parametrize("plant", OUTWARD)
def test_a_repository_does_not_lead_out_of_the_roots(
    mine: Repo, private: Repo, roots: FileRoots, plant: Callable[[Repo, Repo], None]
) -> None:
    plant(mine, private)
    with pytest.raises(FailedPrecondition, match=r"roots|symbolic link") as failure, opened(mine.path, roots):
        pass
    assert failure.value.reason == "REMOTE_NOT_ALLOWED"


async def test_no_call_reads_or_writes_what_a_repository_leads_to(parts: GitParts, mine: Repo, private: Repo) -> None:
    remote = Remote("repo-1", str(mine.path))
    commit = (await parts.prepare(remote)).commit_id
    lends(mine, private)
    for call in (
        parts.prepare(remote),
        parts.manager.clone(CloneSpec("clone-1", remote)),
        parts.manager.push(remote, commit, b"new", ""),
    ):
        with pytest.raises(FailedPrecondition) as failure:
            await call
        assert failure.value.reason == "REMOTE_NOT_ALLOWED"


def test_a_repository_does_not_borrow_from_the_results_of_jobs(mine: Repo, tmp_path: Path) -> None:
    results = mine.bare_clone(tmp_path / "home" / "git" / "results" / "other.git")
    alternates(mine, results.path / "objects")
    everywhere = FileRoots((Path("/"),), (), tmp_path / "home")
    with pytest.raises(FailedPrecondition, match="data directory"), opened(mine.path, everywhere):
        pass


@as_root
@pytest.mark.parametrize("part", [".", "objects", "config", "refs/heads", "objects/info/alternates"])
def test_all_of_a_repository_is_the_services_own_users(mine: Repo, roots: FileRoots, part: str) -> None:
    alternates(mine)
    os.chown(mine.path / part, OTHER, OTHER)
    with pytest.raises(FailedPrecondition, match=f"uid {OTHER}.*{OTHERS}") as failure, opened(mine.path, roots):
        pass
    assert failure.value.reason == "REMOTE_NOT_ALLOWED"


@as_root
def test_what_a_repository_borrows_is_the_services_own_users(mine: Repo, roots: FileRoots) -> None:
    lender = mine.bare_clone(mine.path.parent / "lender.git")
    alternates(mine, lender.path / "objects")
    with opened(mine.path, roots) as repository:
        assert [borrowed.path for borrowed in repository.borrowed] == [lender.path / "objects"]
    give_away(lender.path / "objects" / "pack")
    with pytest.raises(FailedPrecondition, match=f"uid {OTHER}"), opened(mine.path, roots):
        pass


def bare(mine: Repo, place: Path) -> Repo:
    return mine


def with_a_tree(mine: Repo, place: Path) -> Repo:
    mine.git("clone", "--quiet", str(mine.path), str(place / "a tree, 100%"))
    return Repo(place / "a tree, 100%")


def linked_tree(mine: Repo, place: Path) -> Repo:
    with_a_tree(mine, place).git("worktree", "add", "--quiet", "-b", "side", str(place / "linked"))
    return Repo(place / "linked")


def borrower(mine: Repo, place: Path) -> Repo:
    mine.git("clone", "--quiet", "--shared", str(mine.path), str(place / "borrower"))
    return Repo(place / "borrower")


def module(mine: Repo, place: Path) -> Repo:
    tree = with_a_tree(mine, place)
    tree.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(mine.path), "module")
    return Repo(tree.path / "module")


@pytest.mark.parametrize("sandboxed", [True, False])
@pytest.mark.parametrize("form", [bare, with_a_tree, linked_tree, borrower, module])
async def test_own_repositories_of_every_form_are_served(
    mine: Repo, roots: FileRoots, git: Git, form: Callable[[Repo, Path], Repo], sandboxed: bool
) -> None:
    repo = form(mine, mine.path.parent)
    commit = repo.head("HEAD") if form is bare else repo.commit("its own", {"own": "x"})
    far_side = FarSide(repo.path, roots, sandboxed)
    async with far_side.connected("upload-pack", Invocation(protocol="file")) as remote:
        listed = await git.run(Command("ls-remote", remote.flags, (remote.url, "HEAD")), remote.invocation)
    assert listed.stdout.splitlines()[0] == f"{commit}\tHEAD".encode()
    source = repo.path / ".git" if (repo.path / ".git").is_dir() else mine.path
    async with far_side.connected("receive-pack", Invocation(git_dir=source, protocol="file")) as remote:
        push = Command("push", remote.flags, (remote.url, f"{mine.head('main')}:refs/heads/pushed"))
        await git.run(push, remote.invocation)
    assert repo.head("pushed") == mine.head("main")


async def test_nothing_that_a_repository_names_runs(parts: GitParts, mine: Repo, tmp_path: Path) -> None:
    canary = tmp_path / "mine" / "canary"
    for hook in HOOKS:
        script(mine.path / "hooks" / hook, canary)
    script(evil := tmp_path / "mine" / "evil", canary)
    (tmp_path / "mine" / "included").write_text(f"[core]\n\tfsmonitor = {evil}\n")
    for key in ("core.alternateRefsCommand", "core.fsmonitor", "core.sshCommand", "uploadpack.packObjectsHook",
                "core.gitProxy", "core.pager", "gc.recentObjectsHook"):  # fmt: skip
        mine.git("config", key, str(evil))
    mine.git("config", "include.path", str(tmp_path / "mine" / "included"))
    mine.git("config", "receive.autogc", "true")
    lender = mine.bare_clone(mine.path.parent / "lender.git")
    alternates(mine, lender.path / "objects")
    remote = Remote("repo-1", str(mine.path))
    base = await parts.prepare(remote)
    assert not await parts.manager.push(remote, base.commit_id, b"new", "")
    assert not canary.exists()


async def test_what_git_does_not_read_leads_it_nowhere(parts: GitParts, mine: Repo, private: Repo) -> None:
    for name in UNREAD:
        (private.path / name).mkdir()
        if (mine.path / name).exists():
            (mine.path / name).rename(mine.path / f"{name}-aside")
        (mine.path / name).symlink_to(private.path / name)
    remote = Remote("repo-1", str(mine.path))
    base = await parts.prepare(remote)
    assert not await parts.manager.push(remote, base.commit_id, b"new", "")
    assert not [entry for name in UNREAD for entry in (private.path / name).iterdir()]


PROMISORS: dict[str, dict[str, str]] = {
    "a repository": {},
    "a program": {"remote.origin.uploadpack": "{evil}"},
    "ext": {"remote.origin.url": "ext::{evil}", "protocol.ext.allow": "always"},
}


@pytest.mark.parametrize("sandboxed", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("way", PROMISORS)
async def test_a_partial_clone_fetches_what_it_lacks_from_nowhere(
    mine: Repo, tmp_path: Path, way: str, sandboxed: bool
) -> None:
    mine.git("config", "uploadpack.allowFilter", "true")
    path, canary = tmp_path / "mine" / "partial.git", tmp_path / "canary"
    mine.git("clone", "--quiet", "--bare", "--filter=blob:none", f"file://{mine.path}", str(path))
    partial, lacks = Repo(path), mine.git("rev-parse", "main:src/lib.py")
    script(tmp_path / "mine" / "evil", canary)
    for key, value in PROMISORS[way].items():
        partial.git("config", key, value.format(evil=tmp_path / "mine" / "evil"))
    before = partial.git("count-objects", "-v")
    settings = {"sandbox_file_remotes": sandboxed}
    async with git_parts(tmp_path / "home", tmp_path / "mine", **settings) as parts:
        with pytest.raises(ServiceError) as failure:
            await parts.prepare(Remote("repo-1", str(path)))
    assert failure.value.reason == "CLONE_FAILED"
    assert (partial.git("count-objects", "-v"), canary.exists()) == (before, False)
    partial.git("cat-file", "-e", lacks, code=128 if PROMISORS[way] else 0)
    assert canary.exists() is bool(PROMISORS[way]), "git by itself would have fetched it"


async def test_what_was_judged_is_what_is_served(
    git: Git, mine: Repo, private: Repo, roots: FileRoots, tmp_path: Path
) -> None:
    """Whoever may rename the repository puts another in its place, between the judgement and git's start."""
    shown = mine.head("main")
    far_side = FarSide(mine.path, roots)
    async with far_side.connected("upload-pack", Invocation(protocol="file")) as remote:
        mine.path.rename(tmp_path / "moved.git")
        mine.path.symlink_to(private.path / ".git")
        listed = await git.run(Command("ls-remote", remote.flags, (remote.url, "HEAD")), remote.invocation)
    assert listed.stdout.splitlines() == [f"{shown}\tHEAD".encode()]


@as_root
async def test_below_the_roots_of_others_a_repository_shows_itself_alone(
    mine: Repo, private: Repo, tmp_path: Path
) -> None:
    async with git_parts(tmp_path / "home-2", others_file_roots=(tmp_path / "mine",)) as parts:
        commit = mine.head("main")
        give_away(mine.path)
        assert (await parts.prepare(Remote("repo-1", str(mine.path)))).commit_id == commit
        wanted = private.commit("secret", {"secret": "x"})
        for number, plant in enumerate(OUTWARD):
            theirs = Repo(tmp_path / "work").bare_clone(tmp_path / "mine" / f"theirs-{number}.git")
            (theirs.path / "refs" / "heads" / "steal").write_text(f"{wanted}\n")
            plant(theirs, private)
            give_away(theirs.path)
            with pytest.raises((FailedPrecondition, NotFound)):
                await parts.prepare(Remote(f"repo-{number}", str(theirs.path)), StartPoint(b"steal"))


async def test_below_the_roots_of_others_a_link_leads_to_nothing_of_ours(mine: Repo, tmp_path: Path) -> None:
    (theirs := tmp_path / "theirs").mkdir()
    (theirs / "repo.git").symlink_to(mine.path)
    (theirs / "directory").symlink_to(mine.path.parent)
    async with git_parts(tmp_path / "home-2", file_roots=(tmp_path,), others_file_roots=(theirs,)) as parts:
        assert await parts.prepare(Remote("repo-0", str(mine.path))), "by its own path it is used"
        for number, path in enumerate((theirs / "repo.git", theirs / "directory" / mine.path.name), start=1):
            with pytest.raises(FailedPrecondition, match="BOATYARD_GIT_OTHERS_FILE_ROOTS"):
                await parts.prepare(Remote(f"repo-{number}", str(path)))


@as_root
async def test_without_a_sandbox_own_repositories_are_served_alone(mine: Repo, tmp_path: Path) -> None:
    everywhere = (Path("/"),)
    far_side = FarSide(mine.path, FileRoots(everywhere, everywhere, tmp_path / "home"), sandboxed=False)
    give_away(mine.path)
    with pytest.raises(FailedPrecondition, match=f"uid {OTHER}"):
        async with far_side.connected("upload-pack", Invocation()):
            pass
