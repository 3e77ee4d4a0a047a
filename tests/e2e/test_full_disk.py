"""A disk that fills up under running jobs, in every way there is: every job ends well, every line is there once."""

import contextlib
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.supervisor.process import LOG_BYTES
from tests.e2e.conftest import Remote
from tests.kit.cell import eventually
from tests.kit.cells import SharingCell, running_cells
from tests.kit.disks import fill, needs_mount, small_disk, use_up_inodes
from tests.kit.postgres import database

pytestmark = [needs_mount, pytest.mark.slow, pytest.mark.timeout(900)]

SERVICES = ("workspace", "git", "execution", "gateway")
JOBS = 20
_ON_THE_SMALL = 8
MIB = 1 << 20
COUNTING = (
    "for i in $(seq 1 300); do echo line $i; sleep 0.2; done; "
    "until echo $BOATYARD_JOB_ID > done.txt; do sleep 0.3; done"  # its own files have no room either
)
BRIEF = "echo brief; until echo $BOATYARD_JOB_ID > done.txt; do sleep 0.3; done"
LINES = b"".join(b"line %d\n" % number for number in range(1, 301))
_FULL_SECONDS = 3.0


def by_anybody(home: Path) -> Callable[[], object]:
    return fill(home).unlink


def by_inodes(home: Path) -> Callable[[], object]:
    ballast = use_up_inodes(home)
    return lambda: shutil.rmtree(ballast)


def by_logs(home: Path) -> Callable[[], object]:
    """Fill the disk with a service's log, which the supervisor cuts by itself when it has grown too long."""
    log = home / "logs" / "gateway.log"
    ballast = fill(home)
    size = ballast.stat().st_size
    ballast.unlink()
    with contextlib.suppress(OSError), log.open("ab", buffering=0) as file:
        for _ in range(size // MIB + 1):
            file.write(b"x" * MIB)

    def make_room() -> None:
        if size <= LOG_BYTES:  # the flood has left so little that the log is not too long yet
            os.truncate(log, 0)
        eventually(lambda: log.stat().st_size < MIB, "the log is cut", timeout=120)

    return make_room


def by_the_databases_log(home: Path) -> Callable[[], object]:
    """Fill the disk with the log of writes of a service's database, which a reader keeps from being reused."""
    writer, reader = (
        sqlite3.connect(home / "execution" / "execution.db", isolation_level=None, timeout=60) for _ in range(2)
    )
    writer.execute("PRAGMA synchronous = OFF")
    writer.execute("CREATE TABLE IF NOT EXISTS ballast (data BLOB)")
    writer.execute("INSERT INTO ballast VALUES ('')")
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM ballast").fetchall()
    writer.execute("PRAGMA busy_timeout = 5000")
    for size in range(2 * MIB, 2 * MIB + 8):  # what stays the same is not written again
        with contextlib.suppress(sqlite3.OperationalError):
            writer.execute("UPDATE ballast SET data = zeroblob(?)", (size,))
    rest = fill(home)

    def make_room() -> None:
        """Let the log be reused, and the rest go: the service empties its log itself."""
        reader.close()
        writer.close()
        rest.unlink()

    return make_room


WAYS = (by_anybody, by_inodes, by_the_databases_log, by_logs)


@pytest.fixture
def cells(postgres_server: object) -> Iterator[list[SharingCell]]:
    """Two cells, the first of which has a disk of 300 MiB."""
    directory = Path(tempfile.mkdtemp(prefix="boatyard-e2e-"))
    settings = {
        "BOATYARD_GATEWAY_MAX_JOBS": str(JOBS),
        "BOATYARD_EXECUTION_MAX_EXECUTIONS": str(2 * JOBS),
        "BOATYARD_EXECUTION_DISK_RESERVE_BYTES": str(60 * MIB),
        "BOATYARD_GIT_MIN_FREE_BYTES": str(8 * MIB),  # less than a flood's log leaves, which stays
        "BOATYARD_WORKSPACE_DISK_RESERVE_BYTES": str(8 * MIB),
    }

    def disk(home: Path) -> contextlib.AbstractContextManager[object]:
        is_first = home.parent.name == "cell-0"
        return small_disk(home, size="300m", inodes=20_000) if is_first else contextlib.nullcontext()

    with (
        database(postgres_server) as url,
        running_cells(directory, 2, url, lease_seconds=20.0, disks=disk, **settings) as running,
    ):
        yield running
    shutil.rmtree(directory)


def test_a_disk_fills_up_under_jobs_and_all_goes_on_by_itself(cells: list[SharingCell], remote: Remote) -> None:
    small, roomy = cells
    roomy.boatyard("pause", roomy.cell_id)
    jobs = {small.submit(remote.path, COUNTING)["job_id"]: LINES for _ in range(_ON_THE_SMALL)}
    services = [(cell, service, cell.service_pid(service)) for cell in cells for service in SERVICES]
    eventually(lambda: not roomy.lines("ps", "--state", "pending"), "all have begun", timeout=300)
    flood = small.submit(remote.path, "cat /dev/zero | tr '\\0' x")
    eventually(lambda: roomy.lines("show", flood["job_id"])[0]["state"] == "RUNNING", "it has begun")
    roomy.boatyard("resume", roomy.cell_id)
    for way in WAYS:
        make_room = way(small.home)
        more = (JOBS - _ON_THE_SMALL) // len(WAYS)
        jobs |= {roomy.submit(remote.path, BRIEF)["job_id"]: b"brief\n" for _ in range(more)}
        time.sleep(_FULL_SECONDS)
        make_room()
    roomy.boatyard("cancel", flood["job_id"])

    for job_id, lines in jobs.items():
        ended = roomy.result(job_id, timeout=300)
        assert ended["state"] == "SUCCEEDED", (ended["reason"], ended["message"])
        assert ended["cell_id"] == small.cell_id or lines != LINES
        assert roomy.output(ended["execution_id"]) == lines
        assert remote.show(f"{ended['branch']}:done.txt") == job_id
    assert len(jobs) == JOBS
    assert roomy.result(flood["job_id"])["state"] == "CANCELLED"
    assert [cell.service_pid(service) for cell, service, _ in services] == [pid for *_, pid in services]
