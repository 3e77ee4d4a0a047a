"""What an agent does with submodules: results link to what others can get, and nothing is lost without a word."""

import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from services.common.caveats import CaveatKind
from services.common.ids import new_id
from services.git.model import (
    Base,
    OmissionReason,
    OmittedArtifact,
    Remote,
    ResultCommit,
    SnapshotSpec,
    StartPoint,
    TreeOrigin,
)
from services.redaction.strand import Redactor
from tests.kit.gitservice import GitParts, LayeredWorkspace, git_parts
from tests.kit.repos import Repo
from tests.kit.submodules import library, link

WRITTEN, LOST = CaveatKind.SUBMODULE_CONTENT, CaveatKind.SUBMODULE_COMMITS
WAYS = ("stacked", "mounted", "copied")


@dataclass
class Served:
    """A repository with two submodules, one of which has one too, and a base of it."""

    parts: GitParts
    place: Path
    base: Base
    remote: Remote

    @property
    def lib(self) -> Repo:
        return Repo(self.place / "lib")


@pytest.fixture(scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    place = tmp_path_factory.mktemp("served")
    inner, lib, other, app = (library(place, name) for name in ("inner", "lib", "other", "app"))
    link(lib, "in", "../inner", inner.head())
    lib.git("branch", "v2")
    link(app, "lib", "../lib", lib.head())
    link(app, "other", "../other", other.head())
    lib.git("checkout", "--quiet", "v2")
    lib.commit("the next version", {"lib": "this is lib 2\n"})
    lib.git("checkout", "--quiet", "main")
    async with git_parts(place / "home", place) as parts:
        remote = Remote("repo-1", str(app.path))
        yield Served(parts, place, await parts.prepare(remote), remote)


@dataclass(frozen=True)
class Case:
    """What an agent does; what it is told of; and where the result's links are."""

    script: str
    links: dict[str, str]
    caveats: tuple[tuple[CaveatKind, str], ...] = ()
    has: tuple[str, ...] = ()


# Without root's way of mounting, `git mv` cannot rename what lies below.
RENAME = (
    "git mv other moved 2> /dev/null || { cp -a other moved; git rm -q --cached other; rm -rf other;"
    " git config -f .gitmodules submodule.other.path moved;"
    " git config -f .git/modules/other/config core.worktree ../../../moved; git add .gitmodules moved; }"
)
SAME = {"lib": "main", "other": "main"}
CASES = {
    "nothing": Case("git submodule status --recursive", SAME),
    "what it ignores": Case(
        "mkdir -p .git/modules/lib/info; echo '*.o' > .git/modules/lib/info/exclude; echo > lib/x.o", SAME
    ),
    "work, uncommitted": Case("echo 1 > lib/new", SAME, ((WRITTEN, "lib"),)),
    "work, committed": Case("cd lib; echo 1 > new; git add new; git commit -qm mine", SAME, ((LOST, "lib"),)),
    "work, committed in both": Case(
        "cd lib; echo 1 > new; git add new; git commit -qm mine; cd ..; git commit -qam both", SAME, ((LOST, "lib"),)
    ),
    "a commit without a change": Case("git -C lib commit -q --allow-empty -m mine", SAME, ((LOST, "lib"),)),
    "work in an inner one": Case("echo 1 > lib/in/new", SAME, ((WRITTEN, "lib"),)),
    "another version": Case("git -C lib checkout -q origin/v2", {**SAME, "lib": "v2"}),
    "another version, committed": Case(
        "git -C lib checkout -q origin/v2; git commit -qam bump", {**SAME, "lib": "v2"}
    ),
    "another version, and work": Case(
        "git -C lib checkout -q origin/v2; echo 1 > lib/new", {**SAME, "lib": "v2"}, ((WRITTEN, "lib"),)
    ),
    "a link committed without a checkout": Case(
        "git update-index --cacheinfo 160000,$(git -C lib rev-parse origin/v2),lib; git commit -qm bump",
        {**SAME, "lib": "v2"},
    ),
    "a link to nowhere": Case(
        f"git update-index --cacheinfo 160000,{'1' * 40},lib; git commit -qm bump", SAME, ((LOST, "lib"),)
    ),
    "a link to nowhere, taken back": Case(
        f"git update-index --cacheinfo 160000,{'1' * 40},lib; git commit -qm there;"
        " git update-index --cacheinfo 160000,$(git -C lib rev-parse HEAD),lib; git commit -qm back", SAME
    ),
    "deleted": Case("rm -rf other", {"lib": "main"}),
    "deleted by git": Case("git rm -q other; git commit -qm gone", {"lib": "main"}),
    "deinitialised": Case("git submodule --quiet deinit other", SAME),
    "its .git deleted": Case("rm other/.git; echo 1 > other/new", SAME, ((WRITTEN, "other"),)),
    "renamed by git": Case(RENAME, {"lib": "main", "moved": "main"}),
    "renamed by git, committed": Case(f"{RENAME}; git commit -qm moved", {"lib": "main", "moved": "main"}),
    "made a file": Case("rm -rf other; echo 1 > other", {"lib": "main"}, has=("other",)),
    "made a link to another": Case("rm -rf other; ln -s lib other", {"lib": "main"}, has=("other",)),
    "another repository in its place": Case(
        "rm -rf other; git init -q other; cd other; echo 1 > x; git add x; git commit -qm x", SAME, ((LOST, "other"),)
    ),
    "added, with an address of its own": Case(
        "git init -q new; cd new; echo 1 > x; git add x; git commit -qm x; cd ..;"
        "git config -f .gitmodules submodule.new.path new;"
        "git config -f .gitmodules submodule.new.url https://h.example/x;"
        "git add .gitmodules new; git commit -qm new",
        SAME, has=("new/x",),
    ),
    "added, empty": Case(
        f"mkdir new; git update-index --add --cacheinfo 160000,{'1' * 40},new; git commit -qm new", SAME,
        ((LOST, "new"),),
    ),
    "added once more": Case(
        "mkdir again; cp -r .git/modules/other again/.git; git config -f again/.git/config --unset core.worktree;"
        "git -C again reset -q --hard; git config -f .gitmodules submodule.again.path again;"
        "git config -f .gitmodules submodule.again.url ../other",
        {**SAME, "again": "main"},
    ),
}  # fmt: skip


async def changed(served: Served, script: str, way: str) -> LayeredWorkspace:
    workspace = await served.parts.layered(served.base, mounted=way == "mounted")
    if way == "copied":  # a directory, as where there are no layers
        workspace = LayeredWorkspace(served.parts.workspace(served.base).tree, served.base)
    await workspace.agent(f"echo work > work; {script}")
    return workspace


async def take(served: Served, workspace: LayeredWorkspace, remote: Remote | None = None) -> ResultCommit:
    try:
        return await served.parts.manager.take_result("repo-1", new_id("result"), workspace.take_spec(), remote)
    finally:
        workspace.unmount()


def links(served: Served, commit_id: str) -> dict[str, str]:
    listing = Repo(served.parts.paths.result_store("repo-1")).git("ls-tree", "-r", commit_id).splitlines()
    return {line.split("\t")[1]: line.split()[2] for line in listing if line.startswith("160000")}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CASES)
async def test_a_result_links_to_what_others_can_get(served: Served, name: str, way: str) -> None:
    case = CASES[name]
    result = await take(served, await changed(served, case.script, way))
    expected = {
        path: Repo(served.place / ("lib" if path == "lib" else "other")).head(branch)
        for path, branch in case.links.items()
    }
    if "lib" in expected and case.links["lib"] == "main":
        expected["lib"] = served.lib.head("main~0")
    assert links(served, result.commit_id) == expected
    assert tuple((caveat.kind, path.decode()) for caveat in result.caveats for path in caveat.paths) == case.caveats
    files = Repo(served.parts.paths.result_store("repo-1")).git("ls-tree", "-r", "--name-only", result.commit_id)
    assert {"work", *case.has} <= set(files.splitlines())
    history = Repo(served.parts.paths.result_store("repo-1")).git(
        "log", "--format=%H", result.commit_id, "--not", served.base.commit_id
    )
    gone = {"1" * 40}
    for commit in history.splitlines():
        assert not gone & set(links(served, commit).values())


@pytest.mark.slow
async def test_what_the_agent_pushed_is_asked_for(served: Served) -> None:
    pushed = Repo(served.place / "lib")
    pushed.git("checkout", "--quiet", "--detach", "main")
    commit = pushed.commit("by an agent", {"agents": "1\n"})
    pushed.git("bundle", "create", "--quiet", served.place / "by-an-agent", "HEAD", "^main")
    pushed.git("update-ref", "refs/heads/by-an-agent", commit)
    pushed.git("checkout", "--quiet", "main")
    workspace = await changed(served, "true", "copied")
    # As an agent with a network has pushed it: the same commit is in the workspace and at the remote.
    shutil.copy(served.place / "by-an-agent", workspace.tree.path / "bundle")
    await workspace.agent("git -C lib fetch -q ../bundle HEAD; rm bundle; git -C lib checkout -q FETCH_HEAD")
    not_asked = await take(served, workspace)
    assert [caveat.kind for caveat in not_asked.caveats] == [LOST]
    result = await take(served, workspace, served.remote)
    assert result.caveats == ()
    assert links(served, result.commit_id)["lib"] == commit


@pytest.mark.slow
async def test_what_the_agent_merged_is_its_remotes(served: Served) -> None:
    """It counts although the submodule itself cannot be had, and nobody can be asked."""
    app = Repo(served.place / "app")
    app.git("checkout", "--quiet", "-b", "next")
    gone = link(app, "gone", "https://10.0.0.1/gone", "3" * 40)
    next_one = link(app, "gone", "https://10.0.0.1/gone", "4" * 40)
    app.git("checkout", "--quiet", "main")
    base = await served.parts.prepare(served.remote, StartPoint(gone.encode()))
    workspace = await served.parts.layered(base, mounted=False)
    await workspace.agent(f"git merge -q {next_one}")
    result = await take(served, workspace, served.remote)
    assert result.caveats == ()
    assert links(served, result.commit_id)["gone"] == "4" * 40


BUMP = "git -C lib checkout -q origin/v2"
AGAIN = {
    # What one agent leaves in a snapshot, what the next one does that begins with it, and where `lib` is then.
    "nothing more": (BUMP, "true", "v2"),
    "other files, committed": (BUMP, "echo 1 > more; git add more; git commit -qm more -- more", "v2"),
    "deinitialised": (BUMP, "git submodule --quiet deinit -f lib", "v2"),
    "moved back, committed": (BUMP, "git -C lib checkout -q origin/main; git commit -qam back", "main"),
    "moved back after a commit": (f"{BUMP}; git commit -qam bump", "git -C lib checkout -q origin/main", "main"),
    "moved on after a commit": (f"echo 1 > a; git add a; git commit -qm a; {BUMP}", "git commit -qam bump", "v2"),
    "a link committed by the second only": (
        "echo 1 > a",
        "git update-index --cacheinfo 160000,$(git -C lib rev-parse origin/v2),lib; git commit -qm bump",
        "v2",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "way"), [*((name, "stacked") for name in AGAIN), ("nothing more", "mounted")])
async def test_a_snapshots_links_are_gone_on_with(served: Served, name: str, way: str) -> None:
    """Where HEAD of a snapshot's tree is has been decided before it: it moves no submodule back."""
    first, second, expected = AGAIN[name]
    workspace = await changed(served, first, way)
    spec = SnapshotSpec(new_id("snapshot"), "repo-1", workspace.tree, served.base.commit_id, "what was left")
    try:
        snapshot = await served.parts.manager.snapshot_tree(spec)
    finally:
        workspace.unmount()
    base = await served.parts.prepare(served.remote, StartPoint(snapshot_id=snapshot.snapshot_id))
    workspace = await changed(replace(served, base=base), "true", way)
    await served.parts.manager.create_branch(workspace.tree, b"work", base.head_commit_id)
    await workspace.agent(second)
    result = await take(served, workspace)
    assert result.caveats == ()
    assert links(served, result.commit_id)["lib"] == served.lib.head(expected)


@dataclass(frozen=True)
class Patched:
    """What an agent does in submodules, and the patches of it: by their names, the repository and the commit below."""

    script: str
    patches: dict[str, tuple[str, str]] = field(default_factory=dict)


LIB = {"lib": ("lib", "main")}
PATCHED = {
    "nothing": Patched("git submodule status"),
    "a clean one": Patched("git -C lib checkout -q origin/v2"),
    "uncommitted": Patched("echo 1 > lib/new; rm lib/README; echo 2 >> lib/lib", LIB),
    "committed": Patched("cd lib; git checkout -qb mine; echo 1 > new; git add new; git commit -qm mine", LIB),
    "both": Patched("cd lib; echo 1 > new; git add new; git commit -qm mine; echo 2 > other; echo 2 >> new", LIB),
    "on another version": Patched("git -C lib checkout -q origin/v2; echo 1 > lib/new", {"lib": ("lib", "v2")}),
    "binary": Patched("head -c 5000 /dev/urandom > lib/bin; chmod +x lib/lib; ln -s lib lib/link", LIB),
    "what it ignores": Patched("echo '*.o' > lib/.gitignore; echo > lib/x.o", LIB),
    "inside an inner one": Patched("echo 1 > lib/in/new", {"lib/in": ("inner", "main")}),
    "without its .git": Patched("rm lib/.git; rm -rf .git; echo 1 > lib/new", LIB),
    "an index that lies": Patched(
        "echo 1 >> lib/lib; git -C lib update-index --assume-unchanged lib; echo > lib/n", LIB
    ),
    "configured": Patched(
        "echo 1 > lib/new; git -C lib config diff.external 'touch /tmp/x'; echo '* diff=x' > lib/.gitattributes", LIB
    ),
    "deleted": Patched("rm -rf lib"),
    "led elsewhere": Patched("rm -rf lib; ln -s /etc lib"),
    "two of them": Patched("echo 1 > lib/new; echo 1 > other/new", {**LIB, "other": ("other", "main")}),
    "renamed": Patched(f"{RENAME}; echo 1 > moved/new", {"moved": ("other", "main")}),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", PATCHED)
async def test_what_was_done_in_them_is_kept_as_patches(served: Served, tmp_path: Path, name: str) -> None:
    case = PATCHED[name]
    manager, place = served.parts.manager, new_id("exec")
    workspace = await changed(served, case.script, "stacked")
    base = TreeOrigin("repo-1", served.base.commit_id)
    taken = await manager.take_artifacts(place, workspace.tree, (), Redactor({}), base)
    names = {f".boatyard/submodules/{path}.patch": path for path in case.patches}
    assert ({each.name for each in taken.artifacts}, taken.omitted) == (set(names), ())
    for artifact, path in names.items():
        repository, branch = case.patches[path]
        clone = tmp_path / repository
        Repo(served.place / repository).git("clone", "--quiet", "--branch", branch, served.place / repository, clone)
        patch = b"".join([piece async for piece, _ in manager.read_artifact(place, artifact, 0, 0)])
        Repo(clone).git("apply", "--index", "-", stdin=patch)
        left = f"cd {path}; find . -name .git -prune -o -path ./in -prune -o -name '*.o' -o -type f -print0 | sort -z"
        listing = await workspace.agent(f"{left} | xargs -0 sha256sum")
        Repo(clone).git("rm", "-rq", "--cached", "--ignore-unmatch", "in")
        here = (each for each in clone.rglob("*") if each.is_file() and not each.is_symlink())
        files = {f"./{each.relative_to(clone)}" for each in here if ".git" not in each.relative_to(clone).parts}
        hashes = {each: hashlib.sha256((clone / each).read_bytes()).hexdigest() for each in files}
        assert dict(reversed(line.split("  ", 1)) for line in listing.splitlines()) == hashes


LEFT_OUT = (".aider*", "/lib/out/", "**/tmp/*.log")
UNWANTED = {
    "nothing": ("true", ()),
    "a name": ("echo > lib/.aider.x; mkdir other/d; echo > other/d/.aider.y", ()),
    "a place": ("mkdir lib/out; echo > lib/out/x", ()),
    "a place elsewhere": ("mkdir other/out; echo > other/out/x", ("other",)),
    "any place": ("mkdir -p lib/tmp other/a/tmp; echo > lib/tmp/x.log; echo > other/a/tmp/y.log", ()),
    "in an inner one": ("echo > lib/in/.aider.x", ()),
    "in both": ("echo > lib/.aider; mkdir lib/in/tmp; echo > lib/in/tmp/x.log", ()),
    "and work": ("echo > lib/.aider; echo > lib/new", ("lib",)),
    "and work in an inner one": ("echo > lib/in/.aider; echo > lib/in/new", ("lib",)),
    "and a change": ("echo > lib/.aider; echo >> lib/lib", ("lib",)),
    "staged": ("cd lib; echo > .aider; git add .aider", ("lib",)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", UNWANTED)
async def test_what_nobody_wants_in_there_is_no_work(served: Served, name: str) -> None:
    script, written = UNWANTED[name]
    workspace = await changed(served, script, "stacked")
    spec = replace(workspace.take_spec(), leave_out=LEFT_OUT)
    result = await served.parts.manager.take_result("repo-1", new_id("result"), spec)
    assert [(each.kind, *each.paths) for each in result.caveats] == [(WRITTEN, path.encode()) for path in written]
    origin, place = TreeOrigin("repo-1", served.base.commit_id, LEFT_OUT), new_id("exec")
    taken = await served.parts.manager.take_artifacts(place, workspace.tree, (), Redactor({}), origin)
    assert bool(taken.artifacts) == bool(written)


@pytest.mark.slow
async def test_patches_have_no_secrets_and_a_bound(served: Served) -> None:
    base, place = TreeOrigin("repo-1", served.base.commit_id), new_id("exec")
    async with git_parts(
        served.parts.paths.home.root.parent / "smaller", served.place, max_artifact_bytes=1 << 20
    ) as parts:
        small = await parts.prepare(served.remote)
        copy = parts.workspace(small)
        copy.agent.write({"lib/new": "the-secret-word\n", "other/big": os.urandom(3_000_000)})
        redactor = Redactor({"WORD": b"the-secret-word"})
        taken = await parts.manager.take_artifacts(place, copy.tree, (), redactor, base)
        assert [each.name for each in taken.artifacts] == [".boatyard/submodules/lib.patch"]
        assert taken.omitted == (OmittedArtifact(".boatyard/submodules/other.patch", OmissionReason.TOO_LARGE),)
        read = parts.manager.read_artifact(place, taken.artifacts[0].name, 0, 0)
        patch = b"".join([piece async for piece, _ in read])
        assert b"[redacted:WORD]" in patch
        assert b"the-secret-word" not in patch


NOWHERE = f"git update-index --add --cacheinfo 160000,{'1' * 40},new && git commit -qm new"
HISTORIES = {
    # What an agent commits on a base without submodules, and how many of its commits are kept.
    "no link": ("true", 1),
    "a link to nowhere": (NOWHERE, 0),
    "one with a directory": (f"mkdir new; {NOWHERE}", 0),
    "one with files": (f"mkdir new; echo 1 > new/file; {NOWHERE}", 0),
    "one that is taken back": (f"{NOWHERE}; git rm -q --cached new; git commit -qm back", 0),
    "one that is merged": (f"git checkout -qb side; {NOWHERE}; git checkout -q -; git merge -q --no-ff side", 0),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if "back" in name else pytest.mark.slow) for name in HISTORIES]
)
async def test_no_commit_links_to_what_nobody_has_where_there_were_no_submodules(
    parts: GitParts, remote: Remote, name: str
) -> None:
    script, kept = HISTORIES[name]
    workspace = await parts.layered(await parts.prepare(remote), mounted=False)
    await workspace.agent(f"echo work > work; git add work; git commit -qm work; {script}")
    result = await parts.manager.take_result("repo-1", "result-1", workspace.take_spec())
    store = Repo(parts.paths.result_store("repo-1"))
    written = store.git(
        "log", "--format=", "--raw", "-m", "--no-abbrev", result.commit_id, f"^{workspace.base.commit_id}"
    )
    assert "160000" not in written
    assert "work" in store.git("ls-tree", "-r", "--name-only", result.commit_id).splitlines()
    assert result.agent_commits == kept
