"""Runner processes, forked from one that is kept for this: starting Python takes ten times as long as a sandbox."""

import asyncio
import contextlib
import errno
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import structlog

import services
from services.agent.engines import ENGINES
from services.agent.providers import ModelProvider
from services.execution.cgroups.group import HIERARCHIES_VARIABLE, ControlGroupHierarchies, to_text
from services.execution.credentials import Credentials
from services.execution.rundir.directory import RunDirectory
from services.sandbox import container_engines

_ROOT = Path(services.__file__).parent.parent
_STARTS_PER_PROCESSOR = 2
_ANSWERS_WITHIN_S = 30.0
_TRIES = 2
_PACKET_BYTES = 64

log = structlog.get_logger()


class Runner:
    """A runner. It is not our child, and stays what it is when whoever forked it is killed."""

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self._pidfd = pidfd

    def has_ended(self) -> bool:
        """True when the process has ended."""
        return self._pidfd < 0 or bool(select.select([self._pidfd], [], [], 0)[0])

    async def ended(self) -> None:
        """Wait until the process has ended."""
        if self._pidfd >= 0:
            await readable(self._pidfd)
            self.close()

    def close(self) -> None:
        """Let go of the process, which does not notice."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


class Runners:
    """Starts runners, and the fork server that makes them, which ends by itself when this process ends."""

    def __init__(self, control_groups: ControlGroupHierarchies) -> None:
        """`control_groups` is where runners make their own."""
        self._control_groups = control_groups
        self._preloaded: list[str] = []
        self._server: _ForkServer | None = None
        self._turn = asyncio.Lock()
        self.start_slots = asyncio.Semaphore(_STARTS_PER_PROCESSOR * (os.cpu_count() or 1))
        """To be held from the start of a runner until it holds the lock of its run."""

    def warm_up(self) -> None:
        """Start the fork server unless there is one."""
        self._server = self._taken_server()

    def _taken_server(self) -> "_ForkServer":
        server = self._server or _ForkServer(self._control_groups, self._preloaded)
        self._server = None
        return server

    def _preload(self, engine: str | None) -> None:
        """From its first execution on, have what an engine needs whose loop is in its runners: 0.7 s and 60 MB."""
        if engine is not None and engine in ENGINES and ENGINES[engine].needs_model and engine not in self._preloaded:
            self.close()
            self._preloaded.append(engine)

    async def start(self, run: RunDirectory, providers: tuple[ModelProvider, ...] = ()) -> Runner:
        """Give a run to a new runner. If another runner has this run already, the new one ends at once.

        The keys of its `providers` go through a pipe that nobody else reads. Raises OSError when the system gives us no
        process.
        """
        credentials = Credentials(providers).to_bytes()
        async with self._turn:
            self._preload(run.engine())
            for _ in range(_TRIES):
                server = self._taken_server()  # it is given back when it has answered
                try:
                    runner = await server.start(os.fsencode(run.path) + b"\n" + credentials)
                except (EOFError, BrokenPipeError, ConnectionResetError, TimeoutError) as error:
                    log.warning("the fork server of runners is gone; a new one is started", why=str(error))
                    server.kill()
                except BaseException:
                    server.kill()
                    raise
                else:
                    self._server = server
                    return runner
            raise ChildProcessError(errno.ECHILD, "the fork server of runners ends or hangs whenever it is started")

    def close(self) -> None:
        """End the fork server; runners go on."""
        if self._server is not None:
            self._server.close()
            self._server = None


class _ForkServer:
    """The process that forks runners: see `services.execution.runner.fork_server`. One request at a time."""

    def __init__(self, control_groups: ControlGroupHierarchies, preload: list[str]) -> None:
        """Start it with the engines `preload` loaded, in a session of its own."""
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-s", "-m", "services.execution.runner"],
                env=_environment(control_groups),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._socket.setblocking(False)
        self._socket.send(" ".join(preload).encode() or b" ")

    async def start(self, line: bytes) -> Runner:
        """Return a new runner, which has been told its run and its credentials by `line`.

        Raises OSError when there can be no process, EOFError, BrokenPipeError, ConnectionResetError or TimeoutError
        when the fork server (or the new runner) has ended or hangs. After any of the latter it is good for nothing.
        """
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                socket.send_fds(self._socket, [b"run"], [reading])
            finally:
                os.close(reading)
            async with asyncio.timeout(_ANSWERS_WITHIN_S):
                await readable(self._socket.fileno())
            answer, descriptors, _, _ = socket.recv_fds(self._socket, _PACKET_BYTES, 1)
            if not answer:
                raise EOFError("it has ended")
            pid = int(answer)
            if pid <= 0:
                raise OSError(-pid, os.strerror(-pid))
            runner = Runner(pid, *descriptors)
            try:
                os.write(writing, line)
            except BaseException:
                runner.close()
                raise
            return runner
        finally:
            os.close(writing)

    def close(self) -> None:
        """Have it end, and wait for that."""
        self._socket.close()
        self._process.wait()

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self.close()


async def readable(fd: int) -> None:
    """Wait until a descriptor is readable."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_reader(fd, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(fd)


async def process_ended(pid: int, is_same: Callable[[], bool]) -> None:
    """Wait until a process, not necessarily our child, has ended; `is_same` says whether the pid is still its own."""
    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        try:
            if is_same():
                await readable(fd)
        finally:
            os.close(fd)


def _environment(control_groups: ControlGroupHierarchies) -> dict[str, str]:
    """Return the environment of runners, which is not ours: that may hold what no agent should see."""
    environment = {"PYTHONPATH": str(_ROOT), "LANG": "C.UTF-8", "PATH": os.environ.get("PATH", os.defpath)}
    if home := os.environ.get("BOATYARD_HOME"):  # for people who look for the processes of one data directory
        environment["BOATYARD_HOME"] = home
    # With these, a container engine's client finds its engine there as it does here.
    environment |= {name: os.environ[name] for name in container_engines.VARIABLES if name in os.environ}
    if control_groups:
        environment[HIERARCHIES_VARIABLE] = to_text(control_groups)
    return environment
