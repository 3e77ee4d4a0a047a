"""Why a program never began, by what those said that were to start it."""

import errno

import pytest

from services.execution.model import Reason
from services.execution.processes.verdict import never_began

WITHOUT_ROOM = (
    str(OSError(errno.ENOSPC, "No space left on device", "/home/x/container/begin")),
    str(OSError(errno.EDQUOT, "Disk quota exceeded")),
    "bwrap: Can't make overlay mount on /newroot/workspace: No space left on device",
    "the container cannot be made: Error: creating container storage: mkdir /var/lib: no space left on device. See",
    "the container does not start: Error response from daemon: failed to create task: no space left on device",
    "image 'x' cannot be fetched: Error: writing blob: storing blob to file: write: disk quota exceeded",
)
OTHERS = (
    "",
    "bwrap: execvp sh: No such file or directory",
    "bwrap: Creating new namespace failed: No space left on device",
    str(OSError(errno.EACCES, "Permission denied")),
    "there is no image 'x' on this machine",
)


@pytest.mark.parametrize("complaint", WITHOUT_ROOM)
def test_lack_of_room_is_named(complaint: str) -> None:
    verdict = never_began(complaint)
    assert verdict.reason is Reason.DISK_FULL
    assert complaint in verdict.message


@pytest.mark.parametrize("complaint", OTHERS)
def test_all_else_is_the_sandboxs(complaint: str) -> None:
    assert never_began(complaint).reason is Reason.SANDBOX_FAILED
