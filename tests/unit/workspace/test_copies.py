import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.common.errors import Exhausted, NotFound
from services.workspace.drivers import DiskAdmission, process
from services.workspace.drivers.copying import CopyDriver
from services.workspace.model import NewWorkspace
from services.workspace.trees import WorkspaceTrees


class Copies:
    """Copies, as the manager makes them."""

    def __init__(self, directory: Path, reserve_bytes: int) -> None:
        directory.mkdir(exist_ok=True)
        self.trees = WorkspaceTrees(directory)
        admission = DiskAdmission(directory, reserve_bytes)
        self.driver = CopyDriver(directory, admission, asyncio.Semaphore(2))

    async def create(self, workspace_id: str, *layers: Path) -> None:
        await self.trees.create(NewWorkspace(workspace_id, layers), self.driver)

    def path(self, workspace_id: str) -> Path:
        return self.trees.place(workspace_id) / "tree"

    def exists(self, workspace_id: str) -> bool:
        return self.driver.is_filled(self.trees.place(workspace_id))


def copies_in(directory: Path, reserve_bytes: int = 0) -> Copies:
    return Copies(directory, reserve_bytes)


def everything_in(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    directory = tmp_path / "base"
    (directory / "src" / "deep").mkdir(parents=True)
    (directory / "src" / "deep" / "code.py").write_text("print(1)\n")
    (directory / "run.sh").write_text("#!/bin/sh\n")
    (directory / "run.sh").chmod(0o755)
    (directory / "link").symlink_to("src/deep/code.py")
    (directory / "out").symlink_to("/etc/passwd")
    (directory / os.fsdecode(b"n\xffme\n with $everything")).write_bytes(b"\0\xff")
    os.link(directory / "run.sh", directory / "twin.sh")
    return directory


async def test_a_copy_is_the_base_in_all_that_git_sees(tmp_path: Path, base: Path) -> None:
    copies = copies_in(tmp_path / "trees")
    await copies.create("w1", base)
    tree = copies.path("w1")

    assert everything_in(tree) == everything_in(base)
    for path in base.rglob("*"):
        copy = tree / path.relative_to(base)
        assert (copy.lstat().st_mode, copy.lstat().st_mtime_ns) == (path.lstat().st_mode, path.lstat().st_mtime_ns)
    assert (tree / "out").readlink() == Path("/etc/passwd")
    assert (tree / os.fsdecode(b"n\xffme\n with $everything")).read_bytes() == b"\0\xff"


async def test_a_copy_and_its_base_share_nothing_that_is_written(tmp_path: Path, base: Path) -> None:
    copies = copies_in(tmp_path / "trees")
    await copies.create("w1", base)
    with (copies.path("w1") / "run.sh").open("a") as file:
        file.write("changed")

    assert (base / "run.sh").read_text() == "#!/bin/sh\n"


async def test_a_base_may_be_a_link_or_read_only(tmp_path: Path, base: Path) -> None:
    (tmp_path / "link").symlink_to(base)
    base.chmod(0o555)
    copies = copies_in(tmp_path / "trees")
    await copies.create("w1", tmp_path / "link")

    assert (copies.path("w1") / "run.sh").is_file()
    assert copies.path("w1").stat().st_mode & 0o700 == 0o700


async def test_without_a_base_a_workspace_is_empty(tmp_path: Path) -> None:
    copies = copies_in(tmp_path / "trees")
    await copies.create("w1")

    assert everything_in(copies.path("w1")) == set()


async def test_a_base_that_is_not_there(tmp_path: Path) -> None:
    copies = copies_in(tmp_path / "trees")
    with pytest.raises(NotFound) as raised:
        await copies.create("w1", tmp_path / "nowhere")

    assert raised.value.reason == "BASE_NOT_FOUND"
    assert not copies.exists("w1")


async def test_a_copy_that_would_not_fit_is_refused_with_the_numbers(tmp_path: Path, base: Path) -> None:
    copies = copies_in(tmp_path / "trees", reserve_bytes=1 << 60)
    with pytest.raises(Exhausted) as raised:
        await copies.create("w1", base)

    assert raised.value.reason == "DISK_FULL"
    assert raised.value.metadata["reserved"] == str(1 << 60)
    assert not copies.exists("w1")


@pytest.fixture
def tiny_disk(tmp_path: Path):
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk that is small enough to fill")
    directory = tmp_path / "tiny"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", directory], check=True)
    yield directory
    subprocess.run(["umount", directory], check=True)


async def test_a_disk_that_fills_up_all_the_same(tmp_path: Path, tiny_disk: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "file").write_bytes(b"small")
    copies = copies_in(tiny_disk / "trees")
    await copies.create("w0", base)
    with (base / "file").open("wb") as file:  # grows behind the back of whoever remembers the base's size
        file.write(os.urandom(3 << 20))
    with pytest.raises(Exhausted) as raised:
        await copies.create("w1", base)
    await copies.trees.clean("w1")

    assert raised.value.reason == "DISK_FULL"
    assert everything_in(tiny_disk / "trees") == {".making", ".trash", "w0", "w0/tree", "w0/tree/file"}


async def test_a_cancelled_copy_leaves_nothing_once_cleaned(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for number in range(3000):
        (base / f"f{number}").write_bytes(b"x" * 4096)
    copies = copies_in(tmp_path / "trees")
    copying = asyncio.create_task(copies.create("w1", base))
    async with asyncio.timeout(30):
        while not any((tmp_path / "trees" / ".making").glob("*/tree/*")):
            await asyncio.sleep(0.001)
    copying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await copying
    await copies.trees.clean("w1")

    assert everything_in(tmp_path / "trees") == {".making", ".trash"}


# Run without root's rights, for whom a directory without permission is no obstacle.
REMOVE_WHAT_AN_AGENT_LEFT = """
import asyncio, os, sys
from pathlib import Path
from tests.unit.workspace.test_copies import copies_in

trees = Path(sys.argv[1])
copies = copies_in(trees)
asyncio.run(copies.create("w1"))
tree = copies.path("w1")
(tree / "locked" / "inner").mkdir(parents=True)
(tree / "locked" / "inner" / "file").touch()
(tree / "blind").mkdir()
(tree / "blind" / "file").touch()
(tree / os.fsdecode(b"-rf")).mkdir()
(tree / os.fsdecode(b"--\\xff\\n *")).touch()
(tree / "away").symlink_to(sys.argv[2])
(tree / "locked" / "away").symlink_to(sys.argv[2])
os.mkfifo(tree / "pipe")
directory = os.open(tree, os.O_RDONLY)
for depth in range(3000):  # far beyond PATH_MAX, and beyond any recursion
    os.mkdir("d", dir_fd=directory)
    inner = os.open("d", os.O_RDONLY, dir_fd=directory)
    os.close(directory)
    directory = inner
os.close(directory)
(tree / "locked" / "inner").chmod(0)
(tree / "locked").chmod(0o555)
(tree / "blind").chmod(0o300)
asyncio.run(copies.trees.discard("w1"))
asyncio.run(copies.trees.clean("w1"))
assert not copies.exists("w1")
assert list((trees / ".trash").iterdir()) == []
"""


def test_whatever_an_agent_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    trees, outside = tmp_path / "trees", tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("kept")
    without_rights = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    script = [sys.executable, "-c", REMOVE_WHAT_AN_AGENT_LEFT, trees, outside]
    subprocess.run([*without_rights, *script], check=True, timeout=60)

    assert (outside / "precious").read_text() == "kept"


async def test_tools_that_are_missing_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = copies_in(tmp_path / "trees")
    assert await copies.driver.probe() is None
    assert everything_in(tmp_path / "trees") == {".making", ".trash"}

    monkeypatch.setattr(process, "ENVIRONMENT", {"PATH": "/nowhere"})
    assert "install coreutils" in (await copies.driver.probe() or "")


def test_what_a_crash_left_is_found_by_its_place(tmp_path: Path) -> None:
    trees = tmp_path / "trees"
    copies = copies_in(trees)
    for path in (".making/w3.abc/tree", ".trash/w4.abc/tree", "w1/tree", "w2/tree"):
        (trees / path).mkdir(parents=True)
    asyncio.run(copies.trees.recover({"w1"}))
    asyncio.run(copies.trees.clean())

    assert everything_in(trees) == {".making", ".trash", "w1", "w1/tree"}
