"""What lies on layers is taken by what has changed alone, and the result is that of reading every file."""

import os
import random
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from services.common.caveats import CaveatKind
from services.common.errors import FailedPrecondition
from services.common.ids import new_id
from services.git.model import Base, Caveat, Remote, ResultCommit, SnapshotSpec, StartPoint
from services.git.worktree.changes import IndexEntry, TreeListing, compare
from services.sandbox import layer_locks
from services.sandbox.spec import Tier
from tests.kit.gitservice import SIGNATURE, GitParts, LayeredWorkspace, git_parts
from tests.kit.repos import Repo

LINK = "1234567890" * 4


PROBE = """
cd "$(mktemp -d)" && mkdir l u w m &&
mount -t overlay -o lowerdir=l,upperdir=u,workdir=w,redirect_dir=on overlay m && umount m
code=$?; rm -rf "$PWD"; exit $code
"""


def ways() -> list[str]:
    """How layers can be mounted on this machine: in each sandbox, and as root by the workspace service."""
    probe = subprocess.run(["unshare", "-m", "sh", "-c", PROBE], check=False, capture_output=True)
    return ["stacked", "mounted"] if probe.returncode == 0 else ["stacked"]


@pytest.fixture(scope="session")
async def deep_parts(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GitParts]:
    place = tmp_path_factory.mktemp("deep")
    work = Repo.init(place / "work")
    work.commit(
        "first", {f"{top}/{sub}/{name}": f"{top}{sub}{name}\n" for top in "abc" for sub in "xy" for name in "12"}
    )
    work.commit("second", {".gitignore": "*.log\nbuild/\n", "top": "top\n", "kept.log": "in spite of the rule\n"})
    work.git("add", "--force", "kept.log")
    (work.path / "link").symlink_to("a/x/1")
    (work.path / "run").write_text("#!/bin/sh\n")
    (work.path / "run").chmod(0o755)
    work.commit("third")
    work.git("update-index", "--add", "--cacheinfo", f"160000,{LINK},sub")
    work.git("commit", "--quiet", "--message=with a submodule")
    work.bare_clone(place / "remote.git")
    async with git_parts(place / "home", place) as parts:
        yield parts


@pytest.fixture(scope="session")
async def deep_base(deep_parts: GitParts) -> Base:
    return await deep_parts.prepare(Remote("repo-1", str(deep_parts.paths.home.root.parent / "remote.git")))


@pytest.fixture(params=ways())
async def workspace(
    deep_parts: GitParts, deep_base: Base, request: pytest.FixtureRequest
) -> AsyncIterator[LayeredWorkspace]:
    made = await deep_parts.layered(deep_base, mounted=request.param == "mounted")
    yield made
    made.unmount()


async def take(parts: GitParts, workspace: LayeredWorkspace) -> ResultCommit:
    return await parts.manager.take_result("repo-1", "result-1", workspace.take_spec())


async def take_by_reading_all(parts: GitParts, workspace: LayeredWorkspace) -> ResultCommit:
    """Where nothing is known of what lies below, every file is read."""
    spec, layers = workspace.take_spec(), workspace.tree.layers
    assert layers
    alias = parts.paths.home.root.parent / "alias"
    if not alias.is_symlink():
        alias.symlink_to(layers.lowers[0])
    tree = replace(spec.tree, layers=replace(layers, lowers=(alias,)))
    return await parts.manager.take_result("repo-1", "result-2", replace(spec, tree=tree))


def tree_of(parts: GitParts, result: ResultCommit) -> str:
    return Repo(parts.paths.result_store("repo-1")).git("ls-tree", "-r", result.commit_id)


CHANGES = {
    "nothing": ":",
    "edit, add, delete": "echo 2 > a/x/1; echo new > b/new; rm c/y/2",
    "the same size and times": "touch -r a/x/1 /tmp/t; printf 'AX1\\n' > a/x/1; touch -r /tmp/t a/x/1",
    "in place by another name": "mv b/x/1 b/x/9; cp -p b/x/2 b/x/1; rm b/x/9",
    "two files swapped": "mv a/x/1 /tmp/1; mv a/x/2 a/x/1; mv /tmp/1 a/x/2",
    "mode": "chmod +x a/x/1; chmod -x run",
    "links": "ln -sf b/x/1 link; rm a/x/1; ln -s ../2 a/x/1; ln a/x/2 a/x/hard",
    "a directory replaced": "rm -r a; mkdir -p a/x; echo other > a/x/1",
    "a directory made a file": "rm -r a; echo file > a",
    "a directory made a link": "rm -r a; ln -s b a",
    "a file made a directory": "rm top; mkdir -p top/in; echo in > top/in/file",
    "a directory renamed": "mv a moved 2>/dev/null || { cp -rp a moved; rm -r a; }",
    "directories swapped": "mv a t && mv b a && mv t b",
    "renamed into one another": "mv b a/b; mv a c/a",
    "renamed and changed": "mv a d; echo more >> d/x/1; rm d/y/1; echo n > d/y/n; mkdir a; echo back > a/f",
    "a directory emptied and refilled": "rm -r b/x b/y; mkdir b/x; echo 1 > b/x/z",
    "what is ignored": "mkdir -p build a/build; echo > build/o; echo > a/build/o; echo > x.log; echo more >> kept.log",
    "other rules of ignoring": "echo '*.o' > .gitignore; echo '!k.o' > a/.gitignore; touch x.o a/k.o a/other.o y.log",
    "attributes": "echo '*.txt text eol=crlf' > .gitattributes; printf 'a\\r\\n' > a.txt",
    "odd names": "printf x > \"$(printf '\\377\\n-a')\"; echo > -rf; mkdir -- -d; echo > -d/-e; echo > ':(glob)x'",
    "no files": "mkfifo pipe; rm top; mkfifo top; mkdir empty",
    "a nested repository": "git init -q n; echo n > n/file; mkdir n/.git/evil; cd n; git add file; git commit -qm n",
    "a nested repository by a file": "mkdir n; echo 'gitdir: ../.git' > n/.git; echo n > n/file",
    "a submodule removed": "rmdir sub",
    "a submodule made a file": "rmdir sub; echo file > sub",
    "no repository": "rm -rf .git; echo 1 > new",
    "another repository": "rm -rf .git; git init -q; git add -A; git commit -qm mine; echo 1 > new",
    "commits": "echo 1 > new; git add new; git commit -qm mine; echo 2 > a/x/1",
    "a commit of what is ignored": "echo 1 > x.log; git add -f x.log; git commit -qm mine; echo 2 >> x.log",
    "a commit that takes back": "git rm -rq a; git commit -qm mine; mkdir a; echo 1 > a/again",
    "an index that lies": "git update-index --assume-unchanged a/x/1; git update-index --skip-worktree a/x/2;"
    " echo changed > a/x/1; echo changed > a/x/2",
    "excludes of its own": "mkdir -p .git/info; echo new > .git/info/exclude; echo 1 > new",
    "a sparse checkout": "mkdir -p .git/info; echo b/ > .git/info/sparse-checkout; git config core.sparseCheckout true;"
    " git read-tree -mu HEAD",
}
MANY = " && ".join(
    f"({CHANGES[name]})"
    for name in ("edit, add, delete", "the same size and times", "mode", "a file made a directory", "odd names",
                 "what is ignored", "a nested repository", "an index that lies", "a submodule removed")
)  # fmt: skip
AT_ONCE = {"many": MANY, "renamed and changed": CHANGES["renamed and changed"], "commits": CHANGES["commits"]}


@pytest.mark.slow
@pytest.mark.parametrize("name", AT_ONCE)
async def test_the_result_is_that_of_reading_every_file(
    deep_parts: GitParts, workspace: LayeredWorkspace, name: str
) -> None:
    await workspace.agent(AT_ONCE[name])
    fast = await take(deep_parts, workspace)
    assert fast == await take_by_reading_all(deep_parts, workspace)
    assert await take(deep_parts, workspace) == fast
    assert fast.changed


# What root's way of mounting does otherwise is renaming directories.
EACH = [
    (way, name)
    for way in ways()
    for name in CHANGES
    if way == "stacked" or "renamed" in name or "swapped" in name or "directory" in name
]


@pytest.mark.slow
@pytest.mark.parametrize(("workspace", "name"), EACH, indirect=["workspace"])
async def test_each_change_gives_the_result_of_reading_every_file(
    deep_parts: GitParts, workspace: LayeredWorkspace, name: str
) -> None:
    await workspace.agent(CHANGES[name])
    fast = await take(deep_parts, workspace)
    whole = await take_by_reading_all(deep_parts, workspace)
    assert tree_of(deep_parts, fast) == tree_of(deep_parts, whole)
    assert fast == whole
    assert fast.changed == (name != "nothing")


def deeds(seed: int) -> str:
    """Return a script of twelve things that an agent may do, most of which work out."""
    choose = random.Random(seed)
    paths = ["a", "b", "c/x", "a/y", "n", "a/n", "c/x/n", "b/x/1", "c/y/2", "top", "a/x/2", "n/m"]

    def deed() -> str:
        one, other, times = choose.choice(paths), choose.choice(paths), choose.randrange(100)
        return choose.choice([
            f"echo {times} > {one}", f"echo {times} >> {one}", f"rm -r {one}", f"mkdir -p {one}", f"mv {one} {other}",
            f"cp -rp {one} {other}", f"ln -s {other} {one}", f"ln {one} {other}", f"touch -r b {one}",
            f"chmod +x {one}", f"mv {one} {other}", f"mv {one} {other}", f"rm -r {one}; mkdir {one}; echo 1 > {one}/z",
            f"mv {one} t; mv {other} {one}; mv t {other}", f"git add -A; git commit -qm {times}",
        ])  # fmt: skip

    return "exec 2>&1; set +e; " + "; ".join(deed() for _ in range(12)) + "; true"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
async def test_whatever_an_agent_does_the_result_is_that_of_reading_every_file(
    deep_parts: GitParts, workspace: LayeredWorkspace, seed: int
) -> None:
    await workspace.agent(deeds(seed))
    assert await take(deep_parts, workspace) == await take_by_reading_all(deep_parts, workspace)
    await workspace.agent(deeds(seed + 1000))
    assert await take(deep_parts, workspace) == await take_by_reading_all(deep_parts, workspace)


async def test_everyday_git_works_on_layers(deep_parts: GitParts, workspace: LayeredWorkspace) -> None:
    manager, tree = deep_parts.manager, workspace.tree
    assert await manager.status(tree) == []
    assert await manager.create_branch(tree, b"work", "") == workspace.base.commit_id
    await workspace.agent("echo 2 > a/x/1; mv b d")
    assert await manager.stage_all(tree) == 9
    made = await manager.commit(tree, "mine", SIGNATURE)
    assert (await manager.head(tree)).commit_id == made
    assert await manager.status(tree) == []
    result = await take(deep_parts, workspace)
    assert (result.commit_id, result.agent_commits) == (made, 1)


async def test_a_workspace_on_a_result_can_be_taken_against_the_first_base(
    deep_parts: GitParts, deep_base: Base
) -> None:
    first = await deep_parts.layered(deep_base, mounted=False)
    await first.agent("echo 1 > first; rm -r c")
    made = await take(deep_parts, first)
    remote = Remote("repo-1", str(deep_parts.paths.home.root.parent / "remote.git"))
    base = await deep_parts.prepare(remote, StartPoint(result_commit_id=made.commit_id))
    second = await deep_parts.layered(base, mounted=False)
    await second.agent("echo 2 > second")
    spec = replace(second.take_spec(), base_commit_id=deep_base.commit_id)
    result = await deep_parts.manager.take_result("repo-1", "result-3", spec)
    changes = await deep_parts.manager.changed_files("repo-1", deep_base.commit_id, result.commit_id)
    assert [change.path for change in changes] == [
        *(f"c/{s}/{n}".encode() for s in "xy" for n in "12"),
        b"first",
        b"second",
    ]
    kept = await deep_parts.manager.snapshot_tree(
        SnapshotSpec("layered", "repo-1", second.tree, base.commit_id, "kept")
    )
    assert tree_of(deep_parts, replace(result, commit_id=kept.commit_id)) == tree_of(deep_parts, result)


async def goes_on_as_if_it_had_not_ended(parts: GitParts, workspace: LayeredWorkspace, left: str, done: str) -> None:
    """What is done from a snapshot gives the same tree, on the same base, as what is done in the workspace itself."""
    manager, base = parts.manager, workspace.base.commit_id
    await workspace.agent(left)
    kept = await manager.snapshot_tree(SnapshotSpec(new_id("snap"), "repo-1", workspace.tree, base, "kept"))
    remote = Remote("repo-1", str(parts.paths.home.root.parent / "remote.git"))
    begun = await parts.prepare(remote, StartPoint(snapshot_id=kept.snapshot_id))
    assert begun.commit_id == base
    layers = workspace.tree.layers
    again = await parts.layered(begun, mounted=bool(layers and layers.mounted_path))
    try:
        assert await manager.create_branch(again.tree, b"again", begun.head_commit_id) == begun.head_commit_id
        untouched = await manager.take_result("repo-1", "untouched", again.take_spec())
        assert tree_of(parts, untouched) == tree_of(parts, replace(untouched, commit_id=kept.commit_id))
        assert untouched.changed == (kept.commit_id != base)
        assert subjects(parts, base, untouched.commit_id) == subjects(parts, base, kept.commit_id, ours="kept")
        await again.agent(done)
        await workspace.agent(done)
        result, expected = await take(parts, again), await take(parts, workspace)
        assert tree_of(parts, result) == tree_of(parts, expected)
    finally:
        again.unmount()


def subjects(parts: GitParts, base: str, commit_id: str, ours: str = "the work") -> list[str]:
    """Return the subjects of the commits since the base, without that of our own."""
    listed = Repo(parts.paths.result_store("repo-1")).git("log", "--format=%s", f"{base}..{commit_id}").splitlines()
    return [subject for subject in listed if subject != ours]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("left", "done"),
    [
        ("a submodule made a file", "edit, add, delete"),
        ("commits", "commits"),
        ("a submodule removed", "what is ignored"),
        ("renamed and changed", "nothing"),
        ("no repository", "a file made a directory"),
    ],
)
async def test_from_a_snapshot_an_agent_goes_on(
    deep_parts: GitParts, workspace: LayeredWorkspace, left: str, done: str
) -> None:
    await goes_on_as_if_it_had_not_ended(deep_parts, workspace, CHANGES[left], f"({CHANGES[done]}) || true")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
async def test_from_a_snapshot_any_agent_goes_on(deep_parts: GitParts, workspace: LayeredWorkspace, seed: int) -> None:
    await goes_on_as_if_it_had_not_ended(deep_parts, workspace, deeds(seed), deeds(seed + 500))


async def test_what_cannot_be_read_stays_as_it_was(deep_parts: GitParts, workspace: LayeredWorkspace) -> None:
    await workspace.agent("mkdir new; echo 1 > new/file; chmod 0 new; echo 1 > a/x/1; chmod 0 a/x/1; echo 2 > a/x/2")
    result = await take(deep_parts, workspace)
    assert result.caveats == (Caveat(CaveatKind.UNREADABLE, (b"a/x/1", b"new"), 2),)
    assert result == await take_by_reading_all(deep_parts, workspace)
    changes = await deep_parts.manager.changed_files("repo-1", workspace.base.commit_id, result.commit_id)
    assert [change.path for change in changes] == [b"a/x/2"]


async def test_layers_that_nobody_has_mounted_need_a_sandbox(deep_parts: GitParts, deep_base: Base) -> None:
    workspace = await deep_parts.layered(deep_base, mounted=False)
    bare = replace(workspace.tree, tier=Tier.NONE)
    with pytest.raises(FailedPrecondition, match="layered workspace needs the sandbox") as failure:
        await deep_parts.manager.status(bare)
    assert failure.value.reason == "SANDBOX_UNAVAILABLE"


async def test_layers_that_are_not_mounted_yet_are_asked_for_again(
    deep_parts: GitParts, deep_base: Base, tmp_path: Path
) -> None:
    workspace = await deep_parts.layered(deep_base, mounted=False)
    assert workspace.tree.layers
    awaited = replace(workspace.tree, layers=replace(workspace.tree.layers, mounted_path=tmp_path))
    with pytest.raises(FailedPrecondition, match="not mounted") as failure:
        await deep_parts.manager.status(awaited)
    assert failure.value.reason == "WORKSPACE_NOT_MOUNTED"


@pytest.mark.slow
async def test_layers_that_somebody_else_has_are_left_alone(deep_parts: GitParts, deep_base: Base) -> None:
    workspace = await deep_parts.layered(deep_base, mounted=False)
    assert workspace.tree.layers
    descriptor = layer_locks.acquire(workspace.tree.layers.upper, "execution e1", shared=False)
    try:
        for call in (take(deep_parts, workspace), deep_parts.manager.status(workspace.tree)):
            with pytest.raises(FailedPrecondition, match="execution e1") as failure:
                await call
            assert failure.value.reason == "WORKSPACE_HELD"
    finally:
        os.close(descriptor)
    assert await deep_parts.manager.status(workspace.tree) == []


def test_what_an_upper_directory_says() -> None:
    below = [IndexEntry(path) for path in (b"a/1", b"a/2", b"ab", b"b", b"c/d/3")] + [
        IndexEntry(b"s", b"160000", LINK.encode())
    ]
    changed = compare(below, TreeListing(files=(b"a", b"b/new"), gone=(b"c",), directories=(b"b", b"s")))
    assert (changed.removed, changed.read) == ((b"a/1", b"a/2", b"b", b"c/d/3"), (b"a", b"b/new"))
    inside = compare(below, TreeListing(files=(b"s/file", b"a/2"), directories=(b"s", b"a"), opaque=(b"a", b"s")))
    assert (inside.removed, inside.read, inside.submodules) == ((b"a/1",), (b"a/2",), (b"s",))
