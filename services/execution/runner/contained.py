"""The agent's processes in a container of an engine's: see `services.sandbox.container`.

What an engine does takes from 0.3 s to, where an image is fetched, minutes. So a thread has the container made, stays
with it and removes it, while the runner listens to its output and heeds who wants it ended.
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

from services.execution.containers import Desk
from services.execution.model import EndVerification, Reason
from services.execution.runner.init import Init, readable
from services.execution.runner.spawning import PIPE_BYTES
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
"""Of the init: what ends it with us."""


class _AbandonedError(Exception):
    """It is to end before it began."""


class ContainedAgent:
    """A program in a container: its init is held by a pidfd, as that of any other sandbox is."""

    egress = None
    status = None

    def __init__(self, spec: SandboxSpec, stdin: int, run: Path) -> None:
        """`run` is the run's directory. Raises SandboxUnavailableError, HeldError, OSError."""
        self._spec = spec
        self._made = container.of(spec)
        self._desk = Desk(run)
        self._init: Init | None = None
        self._left = 0
        self._fetching: subprocess.Popen[bytes] | None = None
        self.exit_status: int | None = None
        self.verified_by: EndVerification | None = None
        self.limit: Reason | None = None
        with contextlib.ExitStack() as stack:
            stack.enter_context(hold_layers(spec))
            self._has_input = not stat.S_ISCHR(os.fstat(stdin).st_mode)
            self._desk.prepare(spec, has_input=self._has_input)
            self.stdout, self.stderr = (self._open(name, os.O_RDONLY) for name in ("out", "err"))
            # Ours too, so that there is no end to read before somebody has begun to write.
            self._ends = [self._open(name, os.O_WRONLY) for name in ("out", "err")]
            self._status, self._life, self._input = (self._open(name, os.O_RDWR) for name in ("status", "life", "in"))
            self._stdin = os.dup(stdin)
            self.exited, self._ended = os.pipe()
            self._wanted, self._unwanted = os.pipe()
            for fd in (self._status, self._life, self._wanted, self._unwanted):
                stack.callback(os.close, fd)
            self._held = stack.pop_all()
        self._thread = threading.Thread(target=self._live, name="container", daemon=True)
        self._thread.start()

    def read_status(self) -> bool:
        """All that there is to know is found out by the thread."""
        return False

    def terminate(self) -> bool:
        """Ask the children of the container's init to end: the init ignores it, and so does what ends it with us."""
        if self._init is None:
            return False
        return self._init.terminate() > _OWN_CHILDREN

    def kill(self) -> None:
        """End the container by its init; one that is being made is never begun."""
        os.write(self._unwanted, b"x")
        if self._fetching is not None:
            self._fetching.kill()
        if self._init is not None:
            self._init.kill()

    def finish(self) -> int:
        """End the container: when its init is gone, the kernel has ended every process in it. Then it is removed."""
        self.kill()
        self._thread.join()
        self._held.close()
        return self._left

    def root(self) -> int | None:
        """The container's init."""
        return None if self._init is None else self._init.pid

    def _live(self) -> None:
        """From the making of the container to its removal."""
        try:
            self._stay(container_engines.find(self._made.engine))
        except _AbandonedError:
            pass
        except (SandboxError, OSError) as error:
            os.write(self._ends[-1], f"{error}\n".encode())
        finally:
            with contextlib.suppress(SandboxError, OSError):  # the service comes back to it: see `containers.sweep`
                self._desk.clear()
            for fd in (*self._ends, self._ended):
                os.close(fd)

    def _stay(self, engine: Engine) -> None:
        self._need_image(engine)
        self._go_on()
        self._desk.make(self._spec, engine)
        self._go_on()
        started = container_engines.ask(engine.program, "start", self._desk.name)
        if started.returncode != 0:
            raise container_engines.refusal("the container does not start", started.stderr)
        select.select([self._status, self._wanted], [], [], _BEGINS_WITHIN_S)
        self._go_on()
        if not readable(self._status, 0) or container.BEGAN not in os.read(self._status, _CHUNK):
            raise SandboxUnavailableError("the container's shell said nothing", "Look whether the image has a /bin/sh")
        self._init = self._init_of(engine)
        self._go_on()
        self._desk.forget_secrets()
        self._connect_input()
        os.write(self._life, b"go\n")
        self._await_end()

    def _need_image(self, engine: Engine) -> None:
        image = self._made.image
        if container_engines.has_image(engine, image):
            return
        if not self._made.may_pull:
            raise container_engines.missing_image(engine, image)
        self._fetching = subprocess.Popen(
            [engine.program, "pull", "--quiet", image],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
        )
        if self._is_unwanted():
            self._fetching.kill()
        _, complaint = self._fetching.communicate()
        if self._fetching.returncode != 0:
            self._go_on()
            raise container_engines.refusal(f"image {image!r} cannot be fetched", complaint)

    def _is_unwanted(self) -> bool:
        return readable(self._wanted, 0)

    def _go_on(self) -> None:
        """Raise _AbandonedError when it is to end."""
        if self._is_unwanted():
            raise _AbandonedError

    def _init_of(self, engine: Engine) -> Init:
        """Find the container's init, and hold it: who has our pipe open is no other's process of the same number."""
        said = container_engines.ask(engine.program, "inspect", "--format", "{{.State.Pid}}", self._desk.name)
        try:
            init = Init(int(said.stdout))
        except (ValueError, OSError):
            raise container_engines.refusal("the container's process is not there", said.stderr) from None
        try:
            if any(map(self._is_life, Path(f"/proc/{init.pid}/fd").iterdir())):
                return init
            problem = "is another's"
        except OSError as error:
            problem = f"cannot be looked at ({error.strerror})"
        init.release()
        raise SandboxUnavailableError(
            f"process {init.pid}, which the engine calls the container's, {problem}",
            "The engine must run on this machine, and Boatyard where it sees the machine's processes",
        )

    def _is_life(self, entry: Path) -> bool:
        return os.path.samestat(entry.stat(), os.fstat(self._life))

    def _connect_input(self) -> None:
        """Begin to hand on standard input; whether the program reads it is none of our business."""
        if self._has_input:
            sink = self._open("in", os.O_WRONLY)
            threading.Thread(target=_hand_on, args=(self._stdin, sink), name="stdin", daemon=True).start()
        else:
            os.close(self._stdin)
        os.close(self._input)

    def _await_end(self) -> None:
        if self._init is None:
            raise RuntimeError("nobody holds the container's init")
        select.select([self._init.fd, self._wanted], [], [])
        self._left = self._init.left(_GONE_WITHIN_S)
        if self._left:
            return
        self.verified_by = EndVerification.PID_NAMESPACE
        # Where the init itself was ended, and told nothing, it was by this signal.
        self.exit_status = -signal.SIGKILL
        if readable(self._status, 0):
            self._learn(os.read(self._status, PIPE_BYTES))

    def _learn(self, told: bytes) -> None:
        """Read the last words of the container's init. The program can speak in its place, of itself alone."""
        for line in told.splitlines():
            words, _, number = line.rpartition(b" ")
            if not number.isdigit() or len(number) > _MOST_DIGITS:
                continue
            if words == container.ENDED:
                self.exit_status = int(number) & 0xFF
            elif int(number) and words in container.KILLED:
                self.limit = Reason.MEMORY_LIMIT
            elif int(number) and words in container.REFUSED:
                self.limit = self.limit or Reason.PROCESS_LIMIT

    def _open(self, name: str, way: int) -> int:
        """Open a pipe of the desk. One that is opened to read and to write waits for nobody, and has no end."""
        fd = os.open(self._desk.path / name, way | os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # a larger pipe is only faster
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        return fd


def _hand_on(stdin: int, sink: int) -> None:
    """Copy to the end of either."""
    os.set_blocking(sink, True)
    with (
        open(stdin, "rb", buffering=0) as source,
        open(sink, "wb", buffering=0) as program,
        contextlib.suppress(BrokenPipeError),
    ):
        shutil.copyfileobj(source, program, _CHUNK)
