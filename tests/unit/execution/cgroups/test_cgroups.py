"""Control groups: found by making some, and a group ends whatever is in it."""

import secrets
import subprocess
import sys
import time
from pathlib import Path

from services.execution.cgroups import hierarchies
from services.execution.cgroups.group import ControlGroup, Controller, from_text, to_text

FORK_LOOP = "import os\nwhile True:\n    if os.fork(): os._exit(0)\n    os.setsid()"


def test_where_there_are_no_control_groups_none_are_found(tmp_path: Path) -> None:
    assert hierarchies.find_hierarchies("boatyard-test", tmp_path) == {}
    (tmp_path / "cgroup").write_text("3:memory:/somewhere\n0::/\n")
    (tmp_path / "mountinfo").write_text(
        f"30 20 0:26 / {tmp_path}/absent rw shared:9 - cgroup cgroup rw,memory\n"
        f"31 20 0:27 / {tmp_path}/gone rw shared:9 - cgroup2 cgroup2 rw\n"
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
    )
    assert hierarchies.find_hierarchies("boatyard-test", tmp_path) == {}, "what cannot be made is not found"


def test_what_is_found_works() -> None:
    """As root on most machines there is something; as an ordinary user often nothing: then there is nothing to do."""
    name = f"boatyard-test-{secrets.token_hex(6)}"
    usable = hierarchies.find_hierarchies(name)
    try:
        assert from_text(to_text(usable)) == usable
        if usable:
            _check(usable)
    finally:
        hierarchies.remove(usable)
    assert [hierarchy.parent for hierarchy in usable.values() if hierarchy.parent.exists()] == []


def _check(usable: dict) -> None:
    group = ControlGroup.make(usable, "run")
    group.limit(1 << 30, 100)
    join = "import sys; [open(f'{d}/cgroup.procs', 'w').write('0') for d in sys.argv[1:]]\n"
    directories = [str(directory) for directory in dict.fromkeys(group.directories.values())]
    code = join + "import os\nif os.fork() == 0:\n    os.setsid()\n    " + FORK_LOOP.replace("\n", "\n    ") + "\n"
    code += "import time; time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", code, *directories])
    deadline = time.monotonic() + 20
    while len(group.pids()) < 2:
        assert time.monotonic() < deadline
    if Controller.PROCESSES in usable:
        assert group.read().vitals.processes >= 1
    assert group.end(20) == 0
    assert group.pids() == set()
    child.wait()
    group.remove()
    assert not any(directory.exists() for directory in group.directories.values())
