"""What git can take of a tree is taken, whatever lies beside it; what it cannot is named, with its kind."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.common.caveats import CaveatKind
from services.git.model import Base, Remote, ResultCommit, SnapshotSpec
from tests.kit.gitservice import GitParts, LayeredWorkspace, git_parts
from tests.kit.repos import Repo

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 5\n"
DEEP = """
import os
at = os.open(".", os.O_RDONLY)
for _ in range(25):
    os.mkdir("d" * 200, dir_fd=at)
    at = os.open("d" * 200, os.O_RDONLY, dir_fd=at)
    os.close(os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=at))
"""


@dataclass(frozen=True)
class Case:
    """What an agent does besides writing `work`; what it is told of; and paths that the result has all the same."""

    script: str
    kind: CaveatKind
    paths: tuple[str, ...]
    has: tuple[str, ...] = ()
    detail: str = ""


U, S, R = CaveatKind.UNREADABLE, CaveatKind.SPECIAL_FILES, CaveatKind.REFUSED
CASES = {
    "a file": Case("echo k > key; chmod 0 key", U, ("key",)),
    "write-only": Case("echo k > key; chmod 200 key", U, ("key",)),
    "a tracked file": Case("echo k > README; chmod 0 README", U, ("README",), has=("README",)),
    "a directory": Case("mkdir -p d/e; echo 1 > d/e/f; chmod 0 d", U, ("d",)),
    "a directory that only lists": Case("mkdir lists; echo 1 > lists/f; chmod 400 lists", U, ("lists",)),
    "a tracked directory": Case("echo 1 > src/new; chmod 0 src", U, ("src",), has=("src/lib.py",)),
    "many of them": Case("for i in 1 2 3 4 5 6; do echo > k$i; done; chmod 0 k3 k5 k6", U, ("k3", "k5", "k6"), ("k4",)),
    "one in what was renamed": Case("mv src to; echo > to/k; chmod 0 to/k", U, ("to/k",), ("to/lib.py",)),
    "a pipe": Case("mkfifo pipe", S, ("pipe",)),
    "a pipe for a file": Case("rm README; mkfifo README", S, ("README",)),
    "a socket": Case("python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"s\")'", S, ("s",)),
    "a name like .git": Case("mkdir .GIT; echo x > .GIT/config", R, (".GIT/config",), detail="keeps for itself"),
    "a name that is .git to Windows": Case("echo x > 'git~1'", R, ("git~1",), detail="keeps for itself"),
    "a submodule named upwards": Case(
        "printf '[submodule \"../x\"]\\n\\tpath = x\\n\\turl = https://h.example/x\\n' > .gitmodules",
        R, (".gitmodules",), detail="gitmodulesName",
    ),
    "a submodule with a command": Case(
        "printf '[submodule \"x\"]\\n\\tpath = x\\n\\turl = -ux\\n' > .gitmodules",
        R, (".gitmodules",), detail="gitmodulesUrl",
    ),
    "rules of another submodule": Case(
        "mkdir in; printf '[submodule \"x\"]\\n\\tpath = -x\\n\\turl = https://h.example/x\\n' > in/.gitmodules;"
        " echo > in/file", R, ("in/.gitmodules",), has=("in/file",), detail="gitmodulesPath",
    ),
    "a link for .gitmodules": Case("ln -s work .gitmodules", R, (".gitmodules",)),
    "attributes of one long line": Case(
        "python3 -c 'print(\"a\" * 5000 + \" text\")' > .gitattributes", R, (".gitattributes",),
        detail="gitattributesL", has=(".gitattributes",),  # the base's
    ),
    "a refused file that is committed": Case(
        "printf '[submodule \"../x\"]\\n\\tpath = x\\n\\turl = https://h.example/x\\n' > .gitmodules;"
        " git add -A; git commit -qm mine", R, (".gitmodules",), detail="gitmodulesName",
    ),
    "a path too long": Case(f"python3 -c '{DEEP}'", CaveatKind.PATH_TOO_LONG, ("d" * 200,), has=("d" * 200 + "/leaf",)),
    "a file for LFS": Case("echo raw > a.bin", CaveatKind.LFS_FILES, ("a.bin",), has=("a.bin",)),
    "a file for LFS that another one speaks for": Case(
        "echo raw > a.bin; { git hash-object a.bin; cat old.bin; } > notes.bin",
        CaveatKind.LFS_FILES, ("a.bin", "notes.bin"), has=("a.bin",),
    ),
    "the beginning of a pointer": Case("head -n 1 old.bin > a.bin", CaveatKind.LFS_FILES, ("a.bin",), has=("a.bin",)),
    "a pointer and more": Case("{ cat old.bin; echo; echo x; } > a.bin", CaveatKind.LFS_FILES, ("a.bin",)),
    "a pointer replaced": Case("rm old.bin; echo raw > old.bin", CaveatKind.LFS_FILES, ("old.bin",), has=("old.bin",)),
    "rules for LFS of its own": Case(
        "mkdir own; echo '*.txt filter=lfs' > own/.gitattributes; echo 1 > own/a.txt; echo 1 > a.txt",
        CaveatKind.LFS_FILES, ("own/a.txt",), has=("own/a.txt", "a.txt"),
    ),
    "a file in a submodule": Case("echo 1 > sub/file", CaveatKind.SUBMODULE_CONTENT, ("sub",)),
    "a repository in a submodule": Case("git init -q sub; echo 1 > sub/f", CaveatKind.SUBMODULE_CONTENT, ("sub",)),
}  # fmt: skip
NOTHING = {
    "a pointer": f"printf '{LFS}' | sed 's/^size /&9/' > b.bin",
    "what is ignored": "echo k > x.log; chmod 0 x.log; mkdir build; echo > build/f; chmod 0 build; mkfifo p.log",
    "a submodule that somebody checked out": "cp -r .git /tmp/c; cd sub; mv /tmp/c .git; git reset -q --hard HEAD~1",
}
WAYS = ("stacked", "copied")
TOGETHER = (
    *(
        "write-only",
        "a tracked file",
        "a directory",
        "a directory that only lists",
        "one in what was renamed",
        "a pipe",
    ),
    *("a socket", "a name like .git", "a submodule named upwards", "rules of another submodule", "a path too long"),
    *("a pointer replaced", "rules for LFS of its own", "a file in a submodule"),
)
"""Those that do not get in one another's way."""


@pytest.fixture(scope="session")
async def odd_parts(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GitParts]:
    place = tmp_path_factory.mktemp("odd")
    work = Repo.sample(place / "work")
    link = work.commit(
        "rules", {".gitattributes": "*.bin filter=lfs\n", "old.bin": LFS, ".gitignore": "*.log\nbuild/\n"}
    )
    work.git("update-index", "--add", "--cacheinfo", f"160000,{link},sub")
    work.git("commit", "--quiet", "--message=with a submodule")
    work.bare_clone(place / "remote.git")
    async with git_parts(place / "home", place) as parts:
        yield parts


@pytest.fixture(scope="session")
async def odd_base(odd_parts: GitParts) -> Base:
    return await odd_parts.prepare(Remote("repo-1", str(odd_parts.paths.home.root.parent / "remote.git")))


async def changed(parts: GitParts, base: Base, script: str, way: str) -> LayeredWorkspace:
    """Return a workspace in which an agent has run a script."""
    workspace = await parts.layered(base, mounted=False)
    if way == "copied":  # a directory, as where there are no layers
        copy = parts.workspace(base)
        workspace = LayeredWorkspace(copy.tree, base)
    await workspace.agent(f"echo work > work; {script}")
    return workspace


async def take(parts: GitParts, workspace: LayeredWorkspace) -> ResultCommit:
    return await parts.manager.take_result("repo-1", "result-1", workspace.take_spec())


def files(parts: GitParts, commit_id: str) -> set[str]:
    return set(Repo(parts.paths.result_store("repo-1")).git("ls-tree", "-r", "--name-only", commit_id).splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("way", WAYS)
async def test_what_cannot_be_taken_is_named_and_all_else_is_taken(
    odd_parts: GitParts, odd_base: Base, name: str, way: str
) -> None:
    case = CASES[name]
    workspace = await changed(odd_parts, odd_base, case.script, way)
    result = await take(odd_parts, workspace)
    (caveat,) = result.caveats
    paths = tuple(path.decode() for path in caveat.paths)
    if caveat.kind is CaveatKind.PATH_TOO_LONG:
        paths = tuple(path.partition("/")[0] for path in paths)
    assert (caveat.kind, paths, caveat.total_paths) == (case.kind, case.paths, len(case.paths))
    assert case.detail in caveat.detail
    taken = files(odd_parts, result.commit_id)
    assert {"work", *case.has} <= taken
    if case.kind in {U, R, S}:
        assert not {*case.paths} - {*case.has} & taken
    snapshot = await odd_parts.manager.snapshot_tree(
        SnapshotSpec(
            f"snap-{Path(str(workspace.tree.path)).parent.name}", "repo-1", workspace.tree, odd_base.commit_id, "m"
        )
    )
    assert snapshot.caveats == result.caveats
    assert await odd_parts.manager.snapshot(snapshot.snapshot_id) == snapshot
    assert files(odd_parts, snapshot.commit_id) == taken


@pytest.mark.parametrize("way", WAYS)
async def test_where_nothing_is_missing_nothing_is_said(odd_parts: GitParts, odd_base: Base, way: str) -> None:
    workspace = await changed(odd_parts, odd_base, "; ".join(f"({script})" for script in NOTHING.values()), way)
    result = await take(odd_parts, workspace)
    assert result.caveats == ()
    assert {"work", "b.bin"} <= files(odd_parts, result.commit_id)


@pytest.mark.parametrize("way", WAYS)
async def test_many_kinds_at_once_are_each_named(odd_parts: GitParts, odd_base: Base, way: str) -> None:
    cases = [CASES[name] for name in TOGETHER]
    workspace = await changed(odd_parts, odd_base, "; ".join(f"({case.script})" for case in cases), way)
    result = await take(odd_parts, workspace)
    expected: dict[CaveatKind, int] = {}
    for case in cases:
        expected[case.kind] = expected.get(case.kind, 0) + len(case.paths)
    assert {each.kind: each.total_paths for each in result.caveats} == expected
    assert {"work", *(path for case in cases for path in case.has)} <= files(odd_parts, result.commit_id)
    assert list(odd_parts.paths.scratch_root.iterdir()) == []
