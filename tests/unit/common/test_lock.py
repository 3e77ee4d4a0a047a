import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.common.errors import StartError
from services.common.lock import FileLock, LockHeldError, holder, is_held, single_instance, take_over
from tests.kit.disks import fill, needs_mount, small_disk, use_up_inodes


def test_a_lock_has_one_holder_who_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_held(path)
    lock = FileLock(path)
    with pytest.raises(LockHeldError) as raised:
        FileLock(path)

    assert raised.value.pid == os.getpid()
    assert (is_held(path), holder(path)) == (True, os.getpid())
    lock.release()
    assert (is_held(path), holder(path)) == (False, None)


def test_a_child_that_is_given_the_lock_holds_it_for_as_long_as_it_lives(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = FileLock(path)
    wait = "import sys; sys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-c", wait], stdin=subprocess.PIPE, pass_fds=[lock.descriptor])
    lock.write_pid(child.pid)
    lock.release()
    assert holder(path) == child.pid

    child.communicate()
    assert not is_held(path)
    FileLock(path).release()


_HOLDER = """
import os, subprocess, sys
from pathlib import Path
from services.common.lock import FileLock
lock = FileLock(Path(sys.argv[1]))
heir = subprocess.Popen(["sleep", sys.argv[2]], pass_fds=[lock.descriptor])
print(heir.pid, flush=True)
os.kill(os.getpid(), 9)
"""


def test_what_a_killed_holder_was_starting_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    subprocess.run([sys.executable, "-c", _HOLDER, path, "0.3"], stdout=subprocess.DEVNULL, check=False)
    with pytest.raises(LockHeldError):
        FileLock(path)
    with single_instance(path, "serves"):
        assert holder(path) == os.getpid()


def test_a_lock_is_not_waited_for_while_its_holder_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock"
    lock = FileLock(path)
    monkeypatch.setattr("services.common.lock.time.sleep", lambda _: pytest.fail("it waits"))
    for pid in (os.getpid(), os.getppid(), 1):
        lock.write_pid(pid)
        with pytest.raises(LockHeldError):
            take_over(path)
    lock.release()


@needs_mount
def test_a_lock_is_taken_on_a_full_disk_and_names_nobody_else(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", inodes=20) as disk:
        FileLock(disk / "old").release()
        (disk / "empty").touch()
        fill(disk)
        for name, written in {"old": os.getpid(), "empty": None}.items():
            lock = FileLock(disk / name)
            assert holder(disk / name) == written
            lock.write_pid(1)
            assert holder(disk / name) == (1 if written else None)
            lock.release()
        use_up_inodes(disk)
        with (
            pytest.raises(StartError, match="No space left on device"),
            single_instance(disk / "new", "does"),
        ):
            pass
