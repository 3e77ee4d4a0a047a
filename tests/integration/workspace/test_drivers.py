"""What every driver promises, asked of each that works here: git sees in a workspace what an agent did, and no more.

The base is a real repository. What an agent does, and git after it, happens in a sandbox, as in a job.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.common.db.engine import open_database, sqlite_url
from services.common.db.fences import Fences
from services.common.db.paging import Page
from services.common.errors import Exhausted, FailedPrecondition, NotFound, StartError
from services.sandbox import aio, environment, host_uids
from services.sandbox.spec import Mount, MountAccess, Overlay, SandboxSpec
from services.workspace import store
from services.workspace.drivers import DiskAdmission, choose, mounts
from services.workspace.manager import WorkspaceManager
from services.workspace.model import File, Layout, NewWorkspace, State, Visibility, WorkspaceView
from services.workspace.store import WorkspaceStore
from services.workspace.trees import WorkspaceTrees
from services.workspace.usage import UsageMeter
from tests.kit.databases import add_database
from tests.kit.drivers import WORKING
from tests.kit.mounts import unmount_below
from tests.kit.repos import Repo
from tests.kit.uids import have_their_own

WORKSPACE = Path("/workspace")
FILES = {
    "README": "a repository\n",
    "run.sh": "#!/bin/sh\n",
    "src/main.py": "print('hello')\n",
    "src/lib.py": "def one():\n    return 1\n" * 20,
    "docs/old/page": "a page that is long enough to be known again\n" * 5,
    "data.bin": bytes(range(256)) * 16,
}

every_driver = pytest.mark.parametrize("driver", WORKING)


@asynccontextmanager
async def managing(directory: Path, driver: str | None = None, **bounds: int) -> AsyncIterator[WorkspaceManager]:
    """Run the service's insides, as its composition root puts them together."""
    trees = directory / "trees"
    trees.mkdir(exist_ok=True)
    choice = await choose(trees, DiskAdmission(trees, 0), wanted=driver, concurrent_copies=2)
    add_database(directory / "workspace.db", "workspace")
    engine = open_database(sqlite_url(directory / "workspace.db"))
    meter = UsageMeter(trees, reserve_bytes=0, **bounds)
    manager = WorkspaceManager(
        WorkspaceStore(engine), Fences(engine, store.fences), WorkspaceTrees(trees), choice, meter
    )
    await manager.recover()
    try:
        yield manager
    finally:
        await manager.aclose()
        await engine.dispose()
        # A sandbox ends a moment after its program; what it was in at that moment was left as it is.
        unmount_below(trees)


def mounted(layout: Layout, holder: str = "a test") -> Mount | Overlay:
    """Show a workspace to a sandbox, as the services that work in it do."""
    if layout.path is not None:
        return Mount(layout.path, WORKSPACE, MountAccess.READ_WRITE)
    return Overlay(layout.lowers, layout.upper, layout.work, WORKSPACE, layout.mounted, holder)


async def inside(seen: WorkspaceView, line: str, code: int = 0) -> bytes:
    """Run a line for /bin/sh in a workspace; return what it wrote."""
    variables = {"GIT_CONFIG_NOSYSTEM": b"1", "GIT_CONFIG_GLOBAL": b"/dev/null"}
    for who in ("AUTHOR", "COMMITTER"):
        variables |= {f"GIT_{who}_NAME": b"Ada", f"GIT_{who}_EMAIL": b"ada@example.com"}
    spec = SandboxSpec(
        (b"/bin/sh", b"-ec", line.encode()), WORKSPACE, (mounted(seen.layout),), environment.base() | variables
    )
    ended = await aio.run(spec, timeout=60)
    assert ended.exit_code == code, ended
    return ended.stdout


async def nobody_in(manager: WorkspaceManager, workspace_id: str) -> None:
    """Wait for the end of the last sandbox, which comes a moment after that of its program."""
    async with asyncio.timeout(20):
        while (await manager.get(workspace_id)).held_by:
            await asyncio.sleep(0.01)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    repo = Repo.init(tmp_path / "base")
    repo.commit("first", FILES)
    (repo.path / "run.sh").chmod(0o755)
    (repo.path / "link").symlink_to("src/main.py")
    repo.commit("second")
    return repo.path


def contents(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Return mode and content of all below a directory, links not followed; the index is git's to refresh."""
    return {
        str(path.relative_to(directory)): (
            path.lstat().st_mode,
            bytes(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else b"",
        )
        for path in directory.rglob("*")
    }


CHANGES = """
echo more >> src/lib.py
rm README
mv src/main.py src/start.py
chmod 755 src/lib.py && chmod 644 run.sh
ln -s nowhere dangling && rm link && ln -s README link
head -c 4096 /dev/urandom > data.bin
head -c 5000000 /dev/zero > large
mkdir -p new/deep && echo x > new/deep/file
printf x > "$(printf 'n\\377me with space')"
mv docs/old docs/new 2>/dev/null || { cp -a docs/old docs/new && rm -r docs/old; }
"""


@every_driver
async def test_git_sees_what_an_agent_did_and_no_more(tmp_path: Path, base: Path, driver: str) -> None:
    before = contents(base)
    async with managing(tmp_path, driver) as manager:
        seen = await manager.create(NewWorkspace("w1", (base,)))
        assert seen.workspace.driver == driver
        assert await inside(seen, "git status --porcelain") == b""
        await inside(seen, CHANGES)
        status = (await inside(seen, "git status --porcelain --no-renames -uall -z")).split(b"\0")
        assert set(status) == {
            *(b" D README", b" M data.bin", b" D docs/old/page", b" M link", b" M run.sh", b" M src/lib.py"),
            *(b" D src/main.py", b"?? dangling", b"?? docs/new/page", b"?? large", b"?? new/deep/file"),
            *(b"?? n\xffme with space", b"?? src/start.py", b""),
        }
        assert b"\n+more\n" in await inside(seen, "git diff -- src/lib.py")
        await inside(seen, "git add -A && git commit -qm work && git fsck --strict 2>&1")
        raw = await inside(seen, "git diff-tree -r -M -z --name-status HEAD~1 HEAD")
        assert b"R100\0docs/old/page\0docs/new/page" in raw
        assert await inside(seen, "git status --porcelain; git cat-file -s HEAD:large") == b"5000000\n"

        other = await manager.create(NewWorkspace("w2", (base,)))
        assert await inside(other, "git status --porcelain; cat README") == b"a repository\n"
        await manager.delete("w1")
        await manager.delete("w2")
    assert contents(base) == before


@every_driver
async def test_several_layers_are_one_tree(tmp_path: Path, driver: str) -> None:
    if not any(name.startswith("overlay") for name in WORKING):
        pytest.skip("a base has several layers only where they can be stacked")
    lower, upper, work = (tmp_path / name for name in ("lower", "upper", "work"))
    for path in (lower / "both", upper, work):
        path.mkdir(parents=True)
    for name in ("kept", "gone", "both/below"):
        (lower / name).write_text("below")
    stack = Overlay((lower,), upper, work, WORKSPACE)
    line = b"rm gone && echo above > both/above && echo changed > kept"
    await aio.run(SandboxSpec((b"sh", b"-c", line), WORKSPACE, (stack,), environment.base()))

    async with managing(tmp_path, driver) as manager:
        seen = await manager.create(NewWorkspace("w1", (upper, lower)))
        found = await inside(seen, "find . -type f | sort; cat kept")
        assert found == b"./both/above\n./both/below\n./kept\nchanged\n"


@every_driver
async def test_without_a_base_a_workspace_is_empty_and_takes_files(tmp_path: Path, driver: str) -> None:
    async with managing(tmp_path, driver) as manager:
        for name in ("w1", "w2"):
            seen = await manager.create(NewWorkspace(name))
            assert await inside(seen, "ls -A; mkdir -p a/b; echo x > a/b/c; mv a d; ls -A") == b"d\n"


@every_driver
async def test_names_that_mean_something_to_the_kernel(tmp_path: Path, base: Path, driver: str) -> None:
    odd = tmp_path / os.fsdecode(b"a,b:c\\d e\n\xff,upperdir=x")
    shutil.copytree(base, odd, symlinks=True)
    home = tmp_path / "ho,me:\\x y"
    home.mkdir()
    async with managing(home, driver) as manager:
        seen = await manager.create(NewWorkspace("w1", (odd,)))
        assert await inside(seen, "cat README; echo changed > README; cat README") == b"a repository\nchanged\n"
        await nobody_in(manager, "w1")
        await manager.delete("w1")
    assert (odd / "README").read_text() == "a repository\n"


@every_driver
async def test_directories_of_the_base_are_renamed_where_that_is_promised(
    tmp_path: Path, base: Path, driver: str
) -> None:
    async with managing(tmp_path, driver) as manager:
        seen = await manager.create(NewWorkspace("w1", (base,)))
        rename = 'python3 -c \'import os; os.rename("docs/old", "docs/new")\''
        if driver == "overlay-userns":  # the kernel's answer is EXDEV, and what moves by copying goes on
            await inside(seen, f"{rename} 2>/dev/null", code=1)
        else:
            await inside(seen, f"{rename} && git mv src lib && test -f docs/new/page && test -f lib/lib.py")


@every_driver
async def test_what_a_workspace_takes_is_its_own(tmp_path: Path, base: Path, driver: str) -> None:
    async with managing(tmp_path, driver, total_bytes=12_000_000) as manager:
        seen = await manager.create(NewWorkspace("w1", (base,)))
        await inside(seen, "head -c 9000000 /dev/urandom > large; sync large")
        usage = await manager.usage(Page())
        ((found, use),) = usage.page
        assert found.workspace_id == "w1"
        assert 9_000_000 <= use.bytes < 11_000_000
        assert use.inodes >= 1
        assert usage.total == use
        assert usage.disk.free_bytes > 0
        await inside(
            await manager.create(NewWorkspace("w2", (base,))), "head -c 9000000 /dev/urandom > large; sync large"
        )
        await manager.usage(Page())
        with pytest.raises(Exhausted) as raised:
            await manager.create(NewWorkspace("w3", (base,)))
        assert raised.value.reason == "WORKSPACES_QUOTA"
        await manager.delete("w2")
        await manager.create(NewWorkspace("w3", (base,)))


async def test_room_is_kept_for_what_those_in_use_may_come_to_take(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    async with managing(tmp_path, max_bytes=free // 2 - (free // 50)) as manager:
        await manager.create(NewWorkspace("w1"))
        await manager.create(NewWorkspace("w2"))
        with pytest.raises(Exhausted) as raised:
            await manager.create(NewWorkspace("w3"))
        assert raised.value.reason == "DISK_FULL"
        await manager.set_state("w1", State.COMPLETED)
        await manager.create(NewWorkspace("w3"))


@pytest.mark.slow
@every_driver
async def test_a_workspace_that_a_sandbox_is_in_is_not_removed(tmp_path: Path, base: Path, driver: str) -> None:
    async with managing(tmp_path, driver) as manager:
        seen = await manager.create(NewWorkspace("w1", (base,)))
        if seen.layout.path is not None:
            await manager.delete("w1")  # a copy is nobody's but its agent's, whose processes keep what they have open
            return
        argv = (b"/bin/sh", b"-c", b"echo there; sleep 60")
        stack = mounted(seen.layout, "execution e1")
        async with aio.start(SandboxSpec(argv, WORKSPACE, (stack,), environment.base())) as process:
            assert process.stdout
            await process.stdout.readline()
            assert (await manager.get("w1")).held_by.startswith("execution e1 ")
            with pytest.raises(FailedPrecondition) as raised:
                await manager.delete("w1")
            assert (raised.value.reason, "execution e1" in raised.value.message) == ("WORKSPACE_HELD", True)
            assert (await manager.get("w1")).workspace.state is State.ACTIVE
        assert await inside(seen, "cat README") == b"a repository\n"
        await manager.delete("w1")
        assert {path.name for path in (tmp_path / "trees").iterdir()} <= {".making", ".trash", ".empty"}


@every_driver
async def test_a_base_that_is_not_there_leaves_nothing(tmp_path: Path, base: Path, driver: str) -> None:
    pins = tmp_path / "pins"
    pins.mkdir()
    async with managing(tmp_path, driver) as manager:
        for layers, where in (((tmp_path / "nowhere",), pins), ((base,), tmp_path / "nowhere")):
            with pytest.raises(NotFound) as raised:
                await manager.create(NewWorkspace("w1", layers, pins_path=where))
            assert raised.value.reason == "BASE_NOT_FOUND"
        assert list(pins.iterdir()) == []
        assert not list((tmp_path / "trees").glob(".*/*"))


@every_driver
async def test_a_base_in_use_has_a_pin_from_before_until_after(tmp_path: Path, base: Path, driver: str) -> None:
    pins = tmp_path / "pins"
    pins.mkdir()
    async with managing(tmp_path, driver) as manager:
        await manager.create(NewWorkspace("w1", (base,), pins_path=pins))
        await manager.create(NewWorkspace("w2", (base,), pins_path=pins))
        assert {path.name for path in pins.iterdir()} == {"w1", "w2"}
        (pins / "w1").unlink()
    async with managing(tmp_path, driver) as manager:
        assert {path.name for path in pins.iterdir()} == {"w1", "w2"}
        await manager.delete("w1")
        assert {path.name for path in pins.iterdir()} == {"w2"}


@every_driver
async def test_a_start_finds_each_workspace_as_it_was_left(tmp_path: Path, base: Path, driver: str) -> None:
    async with managing(tmp_path, driver) as manager:
        seen = await manager.create(NewWorkspace("w1", (base,)))
        await inside(seen, "echo kept > work-of-hours")
        await nobody_in(manager, "w1")
        await manager.aclose()  # nobody is in it, so a stop unmounts, as a reboot does
        assert mounts.mounted_below(tmp_path / "trees") == []
    async with managing(tmp_path, driver) as manager:
        assert await inside(await manager.get("w1"), "cat work-of-hours README") == b"kept\na repository\n"
        again = await manager.create(NewWorkspace("w1", (base,)))
        assert again.workspace == (await manager.get("w1")).workspace


@every_driver
async def test_a_start_mends_what_a_kill_left(tmp_path: Path, base: Path, driver: str) -> None:
    async with managing(tmp_path, driver) as manager:
        await manager.create(NewWorkspace("known", (base,)))
        pins = tmp_path / "pins"
        pins.mkdir()
        trees, chosen = manager._trees, manager._choice.chosen
        await trees.create(NewWorkspace("unknown", (base,), pins_path=pins), chosen)
        await trees.create(NewWorkspace("half", (base,), pins_path=pins), chosen)
        trees.place("half").rename(tmp_path / "trees" / ".making" / "half.abc")
        await trees.create(NewWorkspace("trashed", (base,), pins_path=pins), chosen)
        trees.place("trashed").rename(tmp_path / "trees" / ".trash" / "trashed.abc")
    async with managing(tmp_path, driver) as manager:
        await manager._trees.clean()
        assert {path.name for path in (tmp_path / "trees").iterdir()} - {".making", ".trash", ".empty"} == {"known"}
        assert not list((tmp_path / "trees").glob(".[mt]*/*"))
        assert list(pins.iterdir()) == []
        assert all(point.is_relative_to(tmp_path / "trees" / "known") for point in mounts.mounted_below(tmp_path))


@every_driver
async def test_agents_have_the_uid_of_their_workspace_alone(tmp_path: Path, base: Path, driver: str) -> None:
    if not have_their_own() or driver == "overlay-userns":
        pytest.skip("agents have our uid here")
    given = (File(Path("given/by/us"), b"text\n"), File(Path("src/lib.py"), b"instead\n"))
    async with managing(tmp_path, driver) as manager:
        seen = {name: await manager.create(NewWorkspace(name, (base,), files=given)) for name in ("w1", "w2")}
        for_host = await manager.create(NewWorkspace("w3", (base,), visibility=Visibility.HOST))
        owners = {name: top(view).stat().st_uid for name, view in seen.items()}
        assert len(set(owners.values())) == 2
        assert all(uid in host_uids.ALL for uid in owners.values())
        assert top(for_host).stat().st_uid == os.geteuid()
        await inside(seen["w1"], f"{CHANGES} echo >> given/by/us; echo >> src/lib.py; chmod 4755 run.sh")
        assert {path.lstat().st_uid for path in top(seen["w1"]).rglob("*")} == {owners["w1"]}
        await nobody_in(manager, "w1")
    async with managing(tmp_path, driver) as manager:
        seen = {name: await manager.get(name) for name in owners}
        assert {name: top(view).stat().st_uid for name, view in seen.items()} == owners
        await inside(seen["w1"], "echo >> given/by/us; grep instead src/lib.py")
        await nobody_in(manager, "w1")
        new = await manager.create(NewWorkspace("w4", (base,)))
        assert top(new).stat().st_uid not in owners.values()
    assert {path.lstat().st_uid for path in base.rglob("*")} == {os.geteuid()}, "the base is as it was"


def top(seen: WorkspaceView) -> Path:
    """Return where the host sees a workspace."""
    place = seen.layout.path or seen.layout.mounted
    assert place
    return place


async def test_programs_without_a_sandbox_find_the_files_at_one_path(tmp_path: Path, base: Path) -> None:
    async with managing(tmp_path) as manager:
        layout = (await manager.create(NewWorkspace("w1", (base,), visibility=Visibility.HOST))).layout
        place = layout.path or layout.mounted
        assert place
        assert (place / "README").read_text() == "a repository\n"
        await manager.delete("w1")


async def test_a_driver_that_does_not_work_is_said_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "mount_overlay", _refused)
    with pytest.raises(StartError, match="BOATYARD_WORKSPACE_DRIVER is overlay, which does not work here"):
        async with managing(tmp_path, "overlay"):
            pass
    async with managing(tmp_path) as manager:
        assert "not permitted" in (manager._choice.complaints["overlay"] or "")


def _refused(*_args: object) -> None:
    raise PermissionError(1, "Operation not permitted")


@pytest.mark.slow
async def test_a_hundred_at_once_on_one_base(tmp_path: Path, base: Path) -> None:
    async with managing(tmp_path) as manager:
        names = [f"w{number}" for number in range(100)]
        made = await asyncio.gather(*(manager.create(NewWorkspace(name, (base,))) for name in names))
        assert {seen.workspace.workspace_id for seen in made} == set(names)
        for seen in made[::25]:
            assert await inside(seen, "git status --porcelain; cat README") == b"a repository\n"
        await asyncio.gather(*(manager.delete(name) for name in names))
    assert not list((tmp_path / "trees").glob("w*"))
