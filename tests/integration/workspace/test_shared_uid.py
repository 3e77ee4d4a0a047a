"""Where the kernel maps no mounts, root's cell says what agents share, and what gives them uids of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.sandbox import bpf, seccomp

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root gives agents another uid"),
    pytest.mark.skipif(seccomp.program() is None, reason="we have no filter for this processor"),
]
# The kernel refuses mount_setattr(2) as one before 5.12 does. A filter holds for the process and its children.
CHOOSE = """
import asyncio, ctypes, os, sys
from pathlib import Path
from services.workspace.drivers.choice import choose
from services.workspace.drivers.disk import DiskAdmission

class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]

program, directory, wanted = bytes.fromhex(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] or None
filters = Program(len(program) // 8, program)
assert ctypes.CDLL(None).prctl(22, 2, ctypes.byref(filters)) == 0
choice = asyncio.run(choose(directory, DiskAdmission(directory, 0), wanted=wanted, concurrent_copies=1))
print(choice.chosen.name, choice.owners is not None, choice.shared_uid, sep=":", flush=True)
"""
_MOUNT_SETATTR, _ENOSYS = 442, 38


def chosen(directory: Path, wanted: str) -> list[str]:
    allowed = bpf.unless_equal(_MOUNT_SETATTR, bpf.allow())
    unmapped = bpf.assemble([bpf.load_number(), allowed, bpf.refuse(_ENOSYS)])
    told = subprocess.run(
        [sys.executable, "-c", CHOOSE, unmapped.hex(), str(directory), wanted],
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return told.stdout.splitlines()[-1].split(":", 2)


def test_what_gives_uids_of_their_own_without_mapped_mounts_is_said_and_does(tmp_path: Path) -> None:
    driver, has_owners, why = chosen(tmp_path, "")
    assert (driver, has_owners) == ("overlay", "False")
    assert "a user of its own" in why
    named = why.partition("BOATYARD_WORKSPACE_DRIVER=")[2].partition(" ")[0]
    assert named in {"copy", "reflink"}
    assert chosen(tmp_path, named) == [named, "True", ""]
