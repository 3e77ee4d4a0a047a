"""The agent's processes in a container: see `services.sandbox.container`.

Each step of a container engine takes from 0.3 s up to minutes, when it fetches an image. So a thread creates the
container, waits for its end and removes it, while the runner reads its output and handles requests to stop.
"""

import contextlib
import fcntl
import os
import select
import shutil
import signal
import stat
import subprocess
import threading
from pathlib import Path

from services.execution.door.child import ModelDoor
from services.execution.egress.child import Egress
from services.execution.model import EndVerification, Reason
from services.execution.processes.containers import ContainerDirectory
from services.execution.processes.init import Init, readable
from services.execution.processes.spawning import PIPE_BYTES
from services.sandbox import container, container_engines
from services.sandbox.container_engines import Engine
from services.sandbox.errors import SandboxError, SandboxUnavailableError
from services.sandbox.launch import hold_layers
from services.sandbox.spec import SandboxSpec

_BEGINS_WITHIN_S = 60.0
_GONE_WITHIN_S = 10.0
_CHUNK = 64 * 1024
_MOST_DIGITS = 20
_OWN_CHILDREN = 1
"""The children of the init that are not the program: one ends the container when the runner ends."""


class _AbandonedError(Exception):
    """The container is to end before it has started."""


class ContainedAgent:
    """A program in a container. Its init is held by a pidfd, like that of any other sandbox."""

    status = None

    def __init__(
        self, spec: SandboxSpec, stdin: int, run: Path, egress: Egress | None, door: ModelDoor | None = None
    ) -> None:
        """`run` is the run's directory. The program begins only when proxy and door, if any, listen in the container.

        Raises SandboxUnavailableError, HeldError, OSError.
        """
        self._spec = spec
        self.egress = egress
        self._listeners = [listener for listener in (egress, door) if listener is not None]
        self._container = container.of(spec)
        self._directory = ContainerDirectory(run)
        self._init: Init | None = None
        self._processes_left = 0
        self._fetching: subprocess.Popen[bytes] | None = None
        self.exit_status: int | None = None
        self.verified_by: EndVerification | None = None
        self.limit: Reason | None = None
        with contextlib.ExitStack() as stack:
            stack.enter_context(hold_layers(spec))
            self._has_input = not stat.S_ISCHR(os.fstat(stdin).st_mode)
            self._directory.prepare(spec, has_input=self._has_input)
            self.stdout, self.stderr = (self._open(name, os.O_RDONLY) for name in ("out", "err"))
            # We hold the writing ends too, so that readers see no end of file before the container has begun to write.
            self._ends = [self._open(name, os.O_WRONLY) for name in ("out", "err")]
            self._status, self._life, self._input = (self._open(name, os.O_RDWR) for name in ("status", "life", "in"))
            self._stdin = os.dup(stdin)
            self.exited, self._ended = os.pipe()
            self._abandoned, self._abandon = os.pipe()
            for fd in (self._status, self._life, self._abandoned, self._abandon):
                stack.callback(os.close, fd)
            self._held = stack.pop_all()
        self._thread = threading.Thread(target=self._run_container, name="container", daemon=True)
        self._thread.start()

    def read_status(self) -> bool:
        """Return False: the thread reads whatever the container reports."""
        return False

    def terminate(self) -> bool:
        """Ask the init's children to end: the init ignores it, and so does the child that ends it with us."""
        if self._init is None:
            return False
        return self._init.terminate() > _OWN_CHILDREN

    def kill(self) -> None:
        """End the container by killing its init; one that is still being created is never started."""
        os.write(self._abandon, b"x")
        if self._fetching is not None:
            self._fetching.kill()
        if self._init is not None:
            self._init.kill()

    def finish(self) -> int:
        """End the container and wait for its removal: once its init is gone, the kernel has ended all its processes."""
        self.kill()
        self._thread.join()
        self._held.close()
        return self._processes_left

    def root(self) -> int | None:
        """Return the container's init."""
        return None if self._init is None else self._init.pid

    def _run_container(self) -> None:
        """Create the container, wait for its end, and remove it."""
        try:
            self._start_and_wait(container_engines.find(self._container.engine))
        except _AbandonedError:
            pass
        except (SandboxError, OSError) as error:
            os.write(self._ends[-1], f"{error}\n".encode())
        finally:
            with contextlib.suppress(SandboxError, OSError):  # the service will try again: see `remove_orphaned`
                self._directory.clear()
            for fd in (*self._ends, self._ended):
                os.close(fd)

    def _start_and_wait(self, engine: Engine) -> None:
        self._ensure_image(engine)
        self._check_abandoned()
        self._directory.make(self._spec, engine)
        self._check_abandoned()
        started = container_engines.ask(engine.program, "start", self._directory.name)
        if started.returncode != 0:
            raise container_engines.refusal("the container does not start", started.stderr)
        select.select([self._status, self._abandoned], [], [], _BEGINS_WITHIN_S)
        self._check_abandoned()
        if not readable(self._status, 0) or container.BEGAN not in os.read(self._status, _CHUNK):
            raise SandboxUnavailableError("the container's shell said nothing", "Check that the image has a /bin/sh")
        self._init = self._find_init(engine)
        for listener in self._listeners:
            listener.open(self._init.pid)
        self._check_abandoned()
        self._directory.delete_secrets()
        self._connect_input()
        os.write(self._life, b"go\n")
        self._await_end()

    def _ensure_image(self, engine: Engine) -> None:
        image = self._container.image
        if container_engines.has_image(engine, image):
            return
        if not self._container.may_pull:
            raise container_engines.missing_image(engine, image)
        self._fetching = subprocess.Popen(
            [engine.program, "pull", "--quiet", image],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
        )
        if self._is_abandoned():
            self._fetching.kill()
        _, complaint = self._fetching.communicate()
        if self._fetching.returncode != 0:
            self._check_abandoned()
            raise container_engines.refusal(f"image {image!r} cannot be fetched", complaint)

    def _is_abandoned(self) -> bool:
        return readable(self._abandoned, 0)

    def _check_abandoned(self) -> None:
        """Raise _AbandonedError when the container is to end."""
        if self._is_abandoned():
            raise _AbandonedError

    def _find_init(self, engine: Engine) -> Init:
        """Find the container's init, and hold it. It has our pipe open, unlike any other process with that pid."""
        inspected = container_engines.ask(engine.program, "inspect", "--format", "{{.State.Pid}}", self._directory.name)
        try:
            init = Init(int(inspected.stdout))
        except (ValueError, OSError):
            raise container_engines.refusal("the container's process is not running", inspected.stderr) from None
        try:
            if any(map(self._is_life_pipe, Path(f"/proc/{init.pid}/fd").iterdir())):
                return init
            problem = "is another process"
        except OSError as error:
            problem = f"cannot be inspected ({error.strerror})"
        init.release()
        raise SandboxUnavailableError(
            f"process {init.pid}, which the container engine reports as the container's, {problem}",
            "The container engine must run on this machine, and Boatyard where it sees the machine's processes",
        )

    def _is_life_pipe(self, entry: Path) -> bool:
        return os.path.samestat(entry.stat(), os.fstat(self._life))

    def _connect_input(self) -> None:
        """Start to copy standard input to the container, in a thread: the program may never read it."""
        if self._has_input:
            sink = self._open("in", os.O_WRONLY)
            threading.Thread(target=_copy_input, args=(self._stdin, sink), name="stdin", daemon=True).start()
        else:
            os.close(self._stdin)
        os.close(self._input)

    def _await_end(self) -> None:
        if self._init is None:
            raise RuntimeError("nobody holds the container's init")
        select.select([self._init.fd, self._abandoned], [], [])
        self._processes_left = self._init.processes_left(_GONE_WITHIN_S)
        if self._processes_left:
            return
        self.verified_by = EndVerification.PID_NAMESPACE
        # If the init itself was killed, and reported nothing, it was by this signal.
        self.exit_status = -signal.SIGKILL
        if readable(self._status, 0):
            self._read_report(os.read(self._status, PIPE_BYTES))

    def _read_report(self, report: bytes) -> None:
        """Read the last report of the container's init. The program can forge it, but only about itself."""
        for line in report.splitlines():
            name, _, number = line.rpartition(b" ")
            if not number.isdigit() or len(number) > _MOST_DIGITS:
                continue
            if name == container.ENDED:
                self.exit_status = int(number) & 0xFF
            elif int(number) and name in container.KILLED:
                self.limit = Reason.MEMORY_LIMIT
            elif int(number) and name in container.REFUSED:
                self.limit = self.limit or Reason.PROCESS_LIMIT

    def _open(self, name: str, mode: int) -> int:
        """Open a pipe of the directory. One that is opened to read and write waits for no peer, and never ends."""
        fd = os.open(self._directory.path / name, mode | os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # a larger pipe is only faster
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        return fd


def _copy_input(stdin: int, sink: int) -> None:
    """Copy until either side ends."""
    os.set_blocking(sink, True)
    with (
        open(stdin, "rb", buffering=0) as source,
        open(sink, "wb", buffering=0) as program,
        contextlib.suppress(BrokenPipeError),
    ):
        shutil.copyfileobj(source, program, _CHUNK)
