"""Delta layers: a near commit is a layer over what is there, and nobody who looks at the stack can tell."""

import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.git.model import Base, Remote, Wanted
from services.git.overlays import overlays_work
from services.sandbox import aio, environment
from services.sandbox.spec import Mount, Overlay, SandboxSpec
from tests.kit.gitservice import GitParts, git_parts
from tests.kit.repos import Repo

FILES = {".gitignore": "*.log\n", ".github/ci": "x\n"} | {
    f"src/{folder}/{name}.py": f"{folder} {name}\n" * 5 for folder in range(20) for name in range(30)
}
CHANGES: dict[str, str | bytes | None] = {
    "src/1/1.py": "another content\n",
    "src/new/deep/file": "new\n",
    "src/2/2.py": None,
    "src/4/4.py": None,
    "src/4/4.py/now/a/directory": "x\n",
    "binary": bytes(range(256)),
    **dict.fromkeys((f"src/3/{name}.py" for name in range(30)), None),
    **dict.fromkeys((f"src/5/{name}.py" for name in range(30)), None),
    "src/5": "a file now\n",
}


@pytest.fixture
def work(tmp_path: Path) -> Repo:
    repo = Repo.init(tmp_path / "work")
    repo.commit("first", FILES)
    return repo


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[GitParts]:
    async with git_parts(tmp_path / "home", tmp_path) as parts:
        # Every machine that the tests run on can; where one cannot, there are no layers and nothing to promise.
        assert await overlays_work(parts.places)
        yield parts


@pytest.fixture
def remote(work: Repo) -> Remote:
    return Remote("repo-1", str(work.path))


async def stacked(base: Base, scratch: Path, *argv: str) -> bytes:
    """Run something in the tree of a base, with an overlay on it, in a sandbox."""
    target = Path("/workspace")
    scratch.mkdir(exist_ok=True)
    for name in ("upper", "work"):
        (scratch / name).mkdir(exist_ok=True)
    spec = SandboxSpec(
        argv=tuple(map(os.fsencode, argv)),
        cwd=target,
        mounts=(
            Overlay(base.layers, scratch / "upper", scratch / "work", target),
            *(Mount(path) for path in base.read_only_paths),
        ),
        environment=environment.base()
        | {"GIT_CONFIG_COUNT": b"1", "GIT_CONFIG_KEY_0": b"safe.directory", "GIT_CONFIG_VALUE_0": b"*"},
    )
    done = await aio.run(spec)
    assert done.exit_code == 0, done.stderr
    return done.stdout


async def test_a_near_commit_is_a_layer_that_nobody_can_tell_from_a_tree(
    parts: GitParts, work: Repo, remote: Remote, tmp_path: Path
) -> None:
    (work.path / "link").symlink_to("src/1")
    work.commit("a link")
    first = await parts.prepare(remote)
    (work.path / "link").unlink()
    (work.path / "link").symlink_to("src/2")
    (work.path / "src/6/6.py").chmod(0o755)
    for name in [name for name, content in CHANGES.items() if content is None]:
        (work.path / name).unlink()
    for folder in ("src/3", "src/5"):
        (work.path / folder).rmdir()
    head = work.commit("second", {name: content for name, content in CHANGES.items() if content is not None})
    second = await parts.prepare(remote)
    assert (second.commit_id, second.layers[1:]) == (head, first.layers)
    assert parts.git.ran["checkout"] == 1

    assert await stacked(second, tmp_path / "a", "git", "status", "--porcelain") == b""
    # What is asked here compares what the index says with the files' inodes and times alone.
    assert await stacked(second, tmp_path / "a", "git", "diff-files", "--name-only") == b""
    assert (await stacked(second, tmp_path / "a", "git", "rev-parse", "HEAD")).decode().strip() == head
    listing = await stacked(second, tmp_path / "b", "sh", "-c", "find . -path ./.git -prune -o -print | sort")
    everything = {"."}
    for path in work.path.rglob("*"):
        if ".git" not in path.parts:
            everything.add(f"./{path.relative_to(work.path)}")
    assert set(listing.decode().splitlines()) == everything
    for name in ("src/1/1.py", "src/5", "binary", "src/4/4.py/now/a/directory", "src/7/7.py"):
        assert await stacked(second, tmp_path / "b", "cat", name) == (work.path / name).read_bytes()
    modes = await stacked(second, tmp_path / "b", "sh", "-c", "test -x src/6/6.py && readlink link")
    assert modes == b"src/2\n"
    assert await stacked(second, tmp_path / "b", "git", "fsck", "--connectivity-only") == b""


async def test_git_believes_the_index_of_a_stack(parts: GitParts, work: Repo, remote: Remote) -> None:
    await parts.prepare(remote)
    work.commit("second", {"src/1/1.py": "another\n"})
    base = await parts.prepare(remote)
    index = int((base.layers[0] / ".git" / "index").stat().st_mtime)
    for layer in base.layers:
        files = (path for path in layer.rglob("*") if ".git" not in path.parts and path.is_file())
        assert all(int(path.stat().st_mtime) < index for path in files), "git would read it at every status"


async def test_no_extended_attribute_and_no_directory_hides_anything(
    parts: GitParts, work: Repo, remote: Remote
) -> None:
    """So the layer means the same to root's overlays and to those of a user namespace."""
    await parts.prepare(remote)
    for name in range(30):
        (work.path / f"src/3/{name}.py").unlink()
    work.commit("second", {"src/3/0.py": "back\n"})
    base = await parts.prepare(remote)
    top = base.layers[0]
    assert all(not os.listxattr(path, follow_symlinks=False) for path in top.rglob("*"))
    hidden = {
        path.relative_to(top).as_posix()
        for path in top.rglob("*")
        if stat.S_ISCHR(path.lstat().st_mode) and ".git" not in path.parts
    }
    assert hidden == {f"src/3/{name}.py" for name in range(1, 30)}


@pytest.mark.slow
async def test_a_stack_has_a_bound_and_a_far_commit_is_a_whole_tree(
    parts: GitParts, work: Repo, remote: Remote, tmp_path: Path
) -> None:
    deepest = 0
    for number in range(6):
        work.commit(f"number {number}", {"counter": str(number)})
        base = await parts.prepare(remote)
        deepest = max(deepest, len(base.layers))
        assert await stacked(base, tmp_path / str(number), "cat", "counter") == str(number).encode()
        assert await stacked(base, tmp_path / str(number), "git", "status", "--porcelain") == b""
    assert deepest == 4
    work.commit("all else", dict.fromkeys(FILES, "rewritten\n"))
    assert len((await parts.prepare(remote)).layers) == 1


async def test_attributes_that_change_make_a_whole_tree(parts: GitParts, work: Repo, remote: Remote) -> None:
    await parts.prepare(remote)
    work.commit("second", {".gitattributes": "* text eol=crlf\n"})
    base = await parts.prepare(remote)
    assert len(base.layers) == 1
    assert (base.layers[0] / "src/1/1.py").read_bytes().endswith(b"\r\n")


async def test_an_older_commit_and_a_result_are_layers_too(
    parts: GitParts, work: Repo, remote: Remote, tmp_path: Path
) -> None:
    older = work.head()
    work.commit("second", {"src/1/1.py": "another\n"})
    newer = await parts.prepare(remote)
    back = await parts.prepare(remote, Wanted(older.encode()))
    assert back.layers[1:] == newer.layers

    workspace = await parts.layered(newer, mounted=False)
    await workspace.agent("echo mine > src/1/1.py; rm -r src/2; git add -A; git commit -qm mine; echo more > new")
    result = await parts.manager.take_result("repo-1", "result-1", workspace.order())
    verified = await parts.prepare(remote, Wanted(result_commit_id=result.commit_id))
    assert verified.layers[1:] == newer.layers
    seen = await stacked(verified, tmp_path / "v", "sh", "-ec", "git status --porcelain; cat src/1/1.py new; ls src")
    assert seen.decode().split() == ["mine", "more", *sorted({str(each) for each in range(20)} - {"2"})]


async def test_without_overlays_every_base_is_whole_and_git_believes_the_index_of_a_copy(
    tmp_path: Path, work: Repo, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def do_not_work(_: object) -> bool:
        return False

    monkeypatch.setattr("tests.kit.gitservice.overlays_work", do_not_work)
    async with git_parts(tmp_path / "home", tmp_path) as parts:
        await parts.prepare(remote)
        work.commit("second", {"src/1/1.py": "another\n"})
        base = await parts.prepare(remote)
        assert len(base.layers) == 1
        copy = parts.workspace(base).agent
        assert copy.git("diff-files", "--name-only") == ""
        copy.write({"src/1/1.py": "changed\n"})
        assert copy.git("status", "--porcelain") == " M src/1/1.py"
