"""Artifacts: what patterns name is kept, whatever an agent has made of its tree, and what is not is named."""

import hashlib
import os
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from services.common.errors import NotFound, OutOfRange
from services.common.ids import new_id
from services.git.model import OmissionReason, TakenArtifacts, WorkingTree
from services.git.worktree.artifact_reader import Globs
from services.redaction.strand import Redactor
from tests.kit.gitservice import GitParts, git_parts
from tests.kit.layout import workspace_trees
from tests.kit.uids import give_to_agents

SECRET = "hunter2-hunter2"
REDACTOR = Redactor({"KEY": SECRET.encode()}, finds_tokens=False)
LATER = datetime.now(UTC) + timedelta(days=3650)


@pytest_asyncio.fixture
async def parts(tmp_path: Path) -> AsyncIterator[GitParts]:
    async with git_parts(tmp_path, max_artifacts=5, max_artifact_bytes=1 << 20) as parts:
        yield parts


@pytest.fixture
def tree(parts: GitParts) -> WorkingTree:
    """A tree that has no repository."""
    path = workspace_trees(parts.paths.home) / new_id("workspace") / "tree"
    path.mkdir(parents=True)
    return WorkingTree(path)


def write(tree: WorkingTree, *names: str, content: bytes = b"x") -> None:
    for name in names:
        path = tree.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


async def take(parts: GitParts, tree: WorkingTree, *patterns: str, artifacts_id: str = "exec-1") -> TakenArtifacts:
    taken = await parts.manager.take_artifacts(artifacts_id, tree, patterns, REDACTOR)
    assert sorted(each.name for each in taken.artifacts) == sorted(
        each.name for each in await parts.manager.artifacts(artifacts_id)
    )
    return taken


async def content(parts: GitParts, name: str, offset: int = 0, max_bytes: int = 0) -> bytes:
    pieces = parts.manager.read_artifact("exec-1", name, offset, max_bytes)
    return b"".join([data async for data, _ in pieces])


def names(taken: TakenArtifacts) -> list[str]:
    return [each.name for each in taken.artifacts]


def omitted(taken: TakenArtifacts) -> dict[str, OmissionReason]:
    return {each.name: each.reason for each in taken.omitted}


@pytest.mark.parametrize(
    ("pattern", "named"),
    [
        ("a", ["a"]),
        ("dist", ["dist/a", "dist/b/c.whl"]),
        ("dist/", []),
        ("dist/*", ["dist/a", "dist/b/c.whl"]),
        ("dist/**", ["dist/a", "dist/b/c.whl"]),
        ("**/*.whl", ["c.whl", "dist/b/c.whl"]),
        ("*.whl", ["c.whl"]),
        ("d?st/a", ["dist/a"]),
        ("DIST/a", []),
        ("**", ["[a].tsx", "a", "c.whl", "dist/a", "dist/b/c.whl"]),
        ("[a].tsx", ["[a].tsx"]),
        ("[ac]*", []),
        ("**/b/**/c.whl", ["dist/b/c.whl"]),
        ("dist/b/c.whl/d", []),
    ],
)
def test_patterns(pattern: str, named: list[str]) -> None:
    paths = ["[a].tsx", "a", "c.whl", "dist/a", "dist/b/c.whl"]
    globs = Globs([pattern])
    assert [path for path in paths if globs.naming(path)] == named
    assert all(globs.lead_below(path.rpartition("/")[0]) for path in named if "/" in path)


async def test_ignored_files_are_kept_too_and_read_in_parts(parts: GitParts, tree: WorkingTree) -> None:
    large = os.urandom(200_000)
    write(tree, ".gitignore", content=b"dist\n")
    write(tree, "dist/a b\n.bin", content=large)
    write(tree, "dist/empty", content=b"")
    taken = await take(parts, tree, "dist", "*.log")
    assert [(each.name, each.size_bytes, each.sha256) for each in taken.artifacts] == [
        ("dist/a b\n.bin", 200_000, hashlib.sha256(large).hexdigest()),
        ("dist/empty", 0, hashlib.sha256(b"").hexdigest()),
    ]
    assert omitted(taken) == {"*.log": OmissionReason.NO_SUCH_FILE}
    assert await content(parts, "dist/a b\n.bin") == large
    assert await content(parts, "dist/a b\n.bin", 70_000, 10) == large[70_000:70_010]
    assert await content(parts, "dist/a b\n.bin", 199_999, 10) == large[-1:]
    assert await content(parts, "dist/empty") == await content(parts, "dist/a b\n.bin", 200_000) == b""
    with pytest.raises(OutOfRange):
        await content(parts, "dist/empty", 1)
    for name in ("dist", "../exec-1/files/manifest.json", "files/0", "/etc/passwd"):
        with pytest.raises(NotFound):
            await content(parts, name)


async def test_nothing_but_regular_files_of_the_tree_is_read(parts: GitParts, tree: WorkingTree) -> None:
    write(tree, "real", ".git/config", "sub/.git/config", ".boatyard/input.json")
    (tree.path / "link").symlink_to("/etc/passwd")
    (tree.path / "linked").symlink_to("/etc")
    os.mkfifo(tree.path / "pipe")
    server = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(tree.path)
    server.bind("socket")
    os.chdir(here)
    server.close()
    os.link(tree.path / "real", tree.path / "same")
    taken = await take(parts, tree, "**", "linked/passwd")
    assert names(taken) == ["real", "same"]
    assert omitted(taken) == {
        **dict.fromkeys(("link", "linked", "pipe", "socket"), OmissionReason.NOT_A_FILE),
        "linked/passwd": OmissionReason.NO_SUCH_FILE,
    }


async def test_what_is_too_much_is_named(parts: GitParts, tree: WorkingTree) -> None:
    write(tree, *(f"f{number}" for number in range(7)))
    write(tree, "b-large", content=bytes((1 << 20) - 3))
    with (tree.path / "a-sparse").open("wb") as file:
        file.truncate(1 << 40)
    taken = await take(parts, tree, "*")
    assert names(taken) == ["b-large", "f0", "f1", "f2"]
    reasons = omitted(taken)
    assert reasons.pop("a-sparse") is OmissionReason.TOO_LARGE
    assert set(reasons) == {"f3", "f4", "f5", "f6"}
    assert reasons["f3"] is OmissionReason.TOO_LARGE
    (tree.path / "b-large").unlink()
    taken = await take(parts, tree, "f*")
    assert (names(taken), set(omitted(taken).values())) == (["f0", "f1", "f2", "f3", "f4"], {OmissionReason.TOO_MANY})


async def test_what_stands_for_secrets_counts_in_their_place(parts: GitParts, tree: WorkingTree) -> None:
    longer = Redactor({"THE_NAME_OF_A_KEY": SECRET.encode()}, finds_tokens=False)
    many = SECRET.encode() * ((1 << 19) // len(SECRET) + 4000)
    write(tree, "a", content=b"x")
    write(tree, "grows", content=many)
    write(tree, "last", content=b"y")
    spec = (new_id("exec"), tree, ["*"], longer)
    taken = await parts.manager.take_artifacts(*spec)
    assert names(taken) == ["a", "last"]
    assert omitted(taken)["grows"] is OmissionReason.TOO_LARGE
    assert sum(each.size_bytes for each in taken.artifacts) <= 1 << 20


async def test_names_that_cannot_be_named_are_told(parts: GitParts, tree: WorkingTree) -> None:
    write(tree, "ok", f"{SECRET}-1", "-x", "\U0001f6a2", "a\\b")
    (tree.path / os.fsdecode(b"n\xff")).write_bytes(b"x")
    deep = "d" * 250
    write(tree, f"{deep}/{deep}/{deep}/{deep}/{deep}")
    taken = await take(parts, tree, "**")
    assert names(taken) == ["-x", "a\\b", "[redacted:KEY]-1", "ok", "\U0001f6a2"]
    assert set(omitted(taken).values()) == {OmissionReason.UNUSABLE_NAME}
    assert "n\ufffd" in omitted(taken)
    assert await content(parts, "[redacted:KEY]-1") == b"x"


async def test_a_character_is_one_of_any_length(parts: GitParts, tree: WorkingTree) -> None:
    write(tree, "é.txt", "ab.txt")
    assert names(await take(parts, tree, "?.txt")) == ["é.txt"]


async def test_secrets_are_not_kept(parts: GitParts, tree: WorkingTree) -> None:
    padding = b"p" * ((1 << 20) - 500)
    write(tree, "log", content=padding[:500_000] + SECRET.encode() + b" end")
    taken = await take(parts, tree, "log")
    kept = await content(parts, "log")
    assert kept == padding[:500_000] + b"[redacted:KEY] end"
    assert taken.artifacts[0].size_bytes == len(kept)
    assert not [
        path for path in parts.paths.artifacts.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()
    ]


async def test_a_later_take_replaces_an_earlier_one(parts: GitParts, tree: WorkingTree) -> None:
    write(tree, "a", "b")
    assert names(await take(parts, tree, "a")) == ["a"]
    assert names(await take(parts, tree, "b")) == ["b"]
    assert await parts.manager.artifacts("exec-2") == []


async def test_they_go_with_time_but_not_while_their_tree_exists(parts: GitParts, tree: WorkingTree) -> None:
    write(tree, "a")
    await take(parts, tree, "a")
    assert await parts.manager.remove_expired(LATER) == []
    assert await content(parts, "a") == b"x"
    tree.path.rename(tree.path.with_name("gone"))
    assert await parts.manager.remove_expired(datetime.now(UTC)) == []
    assert await parts.manager.remove_expired(LATER) == ["exec-1"]
    assert await parts.manager.artifacts("exec-1") == []
    assert list(parts.paths.artifacts.iterdir()) == []


async def test_what_cannot_be_read_is_named(parts: GitParts, tree: WorkingTree) -> None:
    write(tree, "a", "b/c", "d/e", "f")
    give_to_agents(tree.path)
    for name in ("a", "b", "d"):
        (tree.path / name).chmod(0)
    try:
        taken = await take(parts, tree, "*", "b/c")
        assert names(taken) == ["f"]
        assert {name for name, reason in omitted(taken).items() if reason is OmissionReason.UNREADABLE} == {
            "a",
            "b",
            "d",
        }
        assert omitted(await take(parts, tree, "f")) == {}
    finally:
        for name in ("b", "d"):
            (tree.path / name).chmod(0o700)
