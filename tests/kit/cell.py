"""A whole cell as a user has it: `boatyard up` on a home of its own, driven by the command line alone."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.kit import processes
from tests.kit.databases import add_databases
from tests.kit.mounts import unmount_below

BOATYARD = Path(sys.executable).parent / "boatyard"
OFFSETS = {"gateway": 0, "http": 20}
"""The services that have a port."""
NOT_KEPT_APART = {"BOATYARD_EXECUTION_ALLOWED_TIERS": "bubblewrap,container,none"}
"""The setting that lets jobs choose tier NONE, with which they reach the test itself."""


_RESERVED: list[socket.socket] = []


def free_port_base() -> int:
    """Return a base for a cell's ports: all of them are free, and no other test on this machine gets the same base."""
    while True:
        base = random.randrange(20000, 30000, 32)
        with contextlib.ExitStack() as stack:
            lock = stack.enter_context(socket.socket(socket.AF_UNIX))
            try:
                lock.bind(
                    f"\0boatyard-test-ports-{base}"
                )  # an abstract socket: the kernel frees the name when this process ends
                for offset in OFFSETS.values():
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", base + offset))
            except OSError:
                continue
            _RESERVED.append(lock.dup())
            return base


def eventually(condition: Callable[[], object], what: str, timeout: float = 60) -> object:
    """Return the first true answer of `condition`; fail with `what` if there is none in time."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        time.sleep(0.05)
    raise AssertionError(f"not within {timeout} s: {what}")


def listens(address: str) -> bool:
    """True when somebody listens at host:port, or at unix:PATH."""
    host, _, rest = address.rpartition(":")
    if host != "unix":
        with socket.socket() as probe:
            return probe.connect_ex((host, int(rest))) == 0
    try:
        directory = os.open(Path(rest).parent, os.O_PATH)
    except FileNotFoundError:
        return False
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(f"/proc/self/fd/{directory}/{Path(rest).name}") == 0  # however long the path is
    finally:
        os.close(directory)


class Cell:
    """A running cell. Every command is a real process; the product is not imported."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.base = free_port_base()
        self.environment = {
            "PATH": f"{BOATYARD.parent}:{os.environ['PATH']}",
            "HOME": str(home.parent),
            "LANG": "C.UTF-8",
            "BOATYARD_HOME": str(home),
        }
        self.command = "up"
        self.arguments: tuple[str, ...] = ()
        self.process: subprocess.Popen[bytes] | None = None

    def address(self, service: str) -> str:
        return f"127.0.0.1:{self.base + OFFSETS[service]}" if service in OFFSETS else self.socket(service)

    def socket(self, service: str) -> str:
        return f"unix:{self.home}/run/{service}.sock"

    def up(self, **environment: str) -> None:
        self.begin(**environment)
        self.await_ready()

    def begin(self, **environment: str) -> None:
        """Start without waiting."""
        with (self.home.parent / "up.log").open("ab") as log:
            self.process = subprocess.Popen(
                [BOATYARD, self.command, "--port-base", str(self.base), *self.arguments],
                env=self.environment | environment,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )

    def await_ready(self) -> None:
        assert self.process
        assert self.process.stdout
        line = self.process.stdout.readline().decode()
        assert line.startswith("ready"), (line, (self.home.parent / "up.log").read_text())

    def down(self) -> None:
        self.boatyard("down")
        if self.process:
            self.process.wait(timeout=30)
            assert self.process.stdout
            self.process.stdout.close()

    def start(self, *arguments: object) -> subprocess.Popen[bytes]:
        """Start a command and leave it running."""
        return subprocess.Popen(
            [BOATYARD, *map(str, arguments)], env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def boatyard(
        self, *arguments: object, code: int | None = 0, timeout: float = 60, stdin: bytes | None = None
    ) -> bytes:
        """Run a command to its end; return its standard output. `code` None takes any exit code."""
        result = subprocess.run(
            [BOATYARD, *map(str, arguments)],
            env=self.environment,
            input=stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        assert code is None or result.returncode == code, (arguments, result.returncode, result.stdout, result.stderr)
        return result.stdout

    def lines(self, *arguments: object, code: int | None = 0, timeout: float = 60) -> list[dict]:
        """Run a command with --json; return the objects that it printed."""
        output = self.boatyard(*arguments, "--json", code=code, timeout=timeout)
        return [json.loads(line) for line in output.splitlines()]

    def run(self, repository: Path, command: str, *arguments: object, code: int = 0, timeout: float = 60) -> dict:
        """Run a job to its end; return its result."""
        lines = self.lines(
            "run", "--repo", repository, "--command", command, *arguments, "Do it.", code=code, timeout=timeout
        )
        assert lines[-1]["kind"] == "result", lines[-1]
        return lines[-1]

    def submit(self, repository: Path, command: str, *arguments: object) -> dict:
        """Submit a job without waiting; return {"kind", "job_id", "execution_id"}."""
        (line,) = self.lines("run", "--repo", repository, "--command", command, "--detach", *arguments, "Do it.")
        return line

    def output(self, execution_id: str) -> bytes:
        """Return all that an execution that has ended wrote to standard output, joined from its events."""
        parts = []
        for expected, event in enumerate(self.lines("logs", execution_id), start=1):
            assert event["sequence"] == expected, "events have gaps or duplicates"
            if event["kind"] == "output" and event["stream"] == "stdout":
                parts.append(processes.event_bytes(event))
        return b"".join(parts)

    def result(self, job_id: str, timeout: float = 60) -> dict:
        """Wait until a job has ended; return it as `show --json` prints it."""

        def ended() -> dict | None:
            (job,) = self.lines("show", job_id)
            return job if job["state"] in ("SUCCEEDED", "FAILED", "CANCELLED") else None

        answer = eventually(ended, f"{job_id} ends", timeout)
        assert isinstance(answer, dict)
        return answer

    def service_pid(self, service: str) -> int:
        """Return the pid of one of the cell's services."""
        (pid,) = self._pids(service)
        return pid

    def kill_service(self, service: str) -> int:
        """Kill a service with -9; return the pid that it had."""
        pid = self.service_pid(service)
        os.kill(pid, signal.SIGKILL)
        return pid

    def await_restart(self, service: str, old_pid: int) -> None:
        """Wait until the supervisor has replaced the old process, and the new one listens."""

        def listens_again() -> bool:
            # A killed process loses its command line before its socket.
            return self._pids(service) not in ([], [old_pid]) and listens(self.socket(service))

        eventually(listens_again, f"{service} listens again")

    def _pids(self, service: str) -> list[int]:
        assert self.process
        return processes.children(self.process.pid, f"services.{service}")


@contextlib.contextmanager
def running_cell(directory: Path, **environment: str) -> Iterator[Cell]:
    """Start a cell under `directory`; end it and check that nothing of it is left."""
    cell = Cell(directory / "home")
    add_databases(cell.home)
    cell.up(**environment)
    try:
        yield cell
    finally:
        cell.down()
        unmount_below(cell.home)  # in case a test killed the service that would have unmounted it
    left = processes.with_environment({"BOATYARD_HOME": str(cell.home)})
    assert not left, f"processes left behind: {left}"
