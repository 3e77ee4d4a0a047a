"""The agent's processes: one class for each sandbox tier, with one way to be watched, asked to end, and ended."""

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from services.common.sandbox import inputs
from services.common.sandbox.ending import end
from services.common.sandbox.launch import Launch, prepare
from services.common.sandbox.spec import Network, SandboxSpec, Tier
from services.execution.egress.child import Egress
from services.execution.model import EndVerification, Reason
from services.execution.rundir import RunDirectory
from services.execution.runner import orphans
from services.execution.runner.group import Group

_GONE_WITHIN_S = 10.0
_BEGINS_WITHIN_S = 30.0
# As good as a megabyte, measured; and the kernel lets the pipes of one user have 64 MiB in all (pipe-user-pages-soft).
_PIPE_BYTES = 256 * 1024


class Agent(Protocol):
    """A started program."""

    stdout: int
    """Non-blocking descriptor of its standard output."""
    stderr: int
    """Non-blocking descriptor of its standard error."""
    exited: int
    """Becomes readable when its outermost process has ended."""

    @property
    def status(self) -> int | None:
        """Calls for `read_status` whenever it becomes readable."""
        ...

    def read_status(self) -> bool:
        """Learn what the sandbox tells of itself; False when it will tell no more."""
        ...

    def terminate(self) -> bool:
        """Ask the program to end; False when it is not there yet, to be called again soon."""
        ...

    def kill(self) -> None:
        """End all its processes."""
        ...

    def finish(self) -> int:
        """After `exited`: end what is left, and return how many processes remain all the same."""
        ...

    @property
    def exit_status(self) -> int | None:
        """After `finish`: the exit code, a negative signal, or None when the program never began."""
        ...

    @property
    def verified_by(self) -> EndVerification | None:
        """After `finish`: what told that nothing is left; None when the program never began."""
        ...

    @property
    def egress(self) -> Egress | None:
        """Its way out, where that is an allow list: its decisions are to be read, and it is to be closed at last."""
        ...

    @property
    def limit(self) -> Reason | None:
        """After `finish`: a limit that the program came up to, as whoever contains it has seen; None for none."""
        ...

    def root(self) -> int | None:
        """The process of which all of the program's descend; None while it is not known."""
        ...


def start(spec: SandboxSpec, run: RunDirectory, group: Group | None) -> Agent:
    """Start the program of `spec` for a run from this, the main, thread; it lives no longer than the thread.

    With a `group` this process is in it afterwards, and shall leave it soon.

    Raises:
        SandboxUnavailableError: there is no sandbox here.
        OSError: the kernel refuses.
    """
    with inputs.held(run.stdin.read_bytes()) if run.stdin.exists() else inputs.nothing() as fd:
        return start_on(spec, fd, run, group)


def start_on(spec: SandboxSpec, stdin: int, run: RunDirectory, group: Group | None) -> Agent:
    """Start as `start` does, with a descriptor as standard input; it stays the caller's."""
    if spec.tier is Tier.CONTAINER:
        from services.execution.runner.contained import ContainedAgent  # noqa: PLC0415 - threads, and what asks engines

        return ContainedAgent(spec, stdin, run.path)
    # Outside of the group, whose limits are the program's.
    egress = Egress(spec.allow) if spec.network is Network.ALLOW_LIST and spec.tier is not Tier.NONE else None
    if group is not None:
        group.enter()
    try:
        if spec.tier is Tier.NONE:
            return BareAgent(spec, stdin, run.home, group)
        return SandboxedAgent(spec, stdin, group, egress)
    except BaseException:
        if egress is not None:
            egress.close()
        raise


class SandboxedAgent:
    """A program under bubblewrap: runner → bwrap → the namespace's init → the program."""

    limit = None

    def __init__(self, spec: SandboxSpec, stdin: int, group: Group | None, egress: Egress | None) -> None:
        """With `egress` the program begins when that listens in there."""
        self._group = group
        self.egress = egress
        self.status, status_end = os.pipe()
        os.set_blocking(self.status, False)
        self._documents = b""
        self._init: int | None = None  # a pidfd, for a pid may be somebody else's by now
        self._init_pid = 0
        self.exit_status: int | None = None
        self.verified_by: EndVerification | None = None
        try:
            with _gate(egress) as (gate, pass_gate), prepare(spec, status_fd=status_end, block_fd=gate) as launch:
                self._bwrap = _spawn(launch, stdin)
                self.exited = os.pidfd_open(self._bwrap.pid)
                self.stdout, self.stderr = _pipes(self._bwrap)
                if egress is not None:
                    self._connect(egress)
                    pass_gate()
        finally:
            os.close(status_end)

    def _connect(self, egress: Egress) -> None:
        """Have the proxy listen in the sandbox. Raises SandboxUnavailableError, and nothing is left."""
        try:
            while self._init is None:
                ended = self.exited in select.select([self.status, self.exited], [], [], _BEGINS_WITHIN_S)[0]
                self.read_status()
                if ended and self._init is None:
                    return  # its complaint is on its standard error, and its end is seen as any other's
            egress.open(self._init_pid)
        except BaseException:
            self.finish()
            raise

    def read_status(self) -> bool:
        """Learn the init's pid while it is certainly the init's, and the exit code."""
        more = True
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self.status, 4096):
                self._documents += chunk
            more = False
        for line in self._documents.splitlines():
            with contextlib.suppress(json.JSONDecodeError):  # not whole yet
                document = json.loads(line)
                self.exit_status = document.get("exit-code", self.exit_status)
                if self._init is None and "child-pid" in document:
                    self._hold_init(document["child-pid"])
        return more

    def terminate(self) -> bool:
        """Ask the child of the namespace's init to end: the init itself ignores it."""
        self.read_status()
        if self._init is None:
            return False
        children = orphans.children(self._init_pid)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
        return bool(children)

    def kill(self) -> None:
        """End the namespace by its init, or bwrap where it is not that far."""
        self.read_status()
        if self._init is None:
            end(self._bwrap.pid)
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._init, signal.SIGKILL)

    def finish(self) -> int:
        """End the namespace: when its init is gone, the kernel has ended every process in it."""
        self.kill()
        self._bwrap.wait()
        left = 0
        if self._init is not None and _wait_readable(self._init, _GONE_WITHIN_S):
            self.verified_by = EndVerification.PID_NAMESPACE
        elif self._init is not None:
            left = 1 + len(orphans.descendants(self._init_pid))
        return left if self._group is None else max(left, self._group.end(_GONE_WITHIN_S))

    def root(self) -> int | None:
        """The namespace's init."""
        return None if self._init is None else self._init_pid

    def _hold_init(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._init, self._init_pid = os.pidfd_open(pid), pid


class BareAgent:
    """A program without a sandbox. Its children are found by their group, or as orphans that come to us."""

    limit = None

    def __init__(self, spec: SandboxSpec, stdin: int, home: Path, group: Group | None) -> None:
        orphans.adopt()
        self._group = group
        self.egress = None
        self.verified_by: EndVerification | None = None
        self.status = None
        home.mkdir(mode=0o700, exist_ok=True)
        with prepare(spec, home=home) as launch:
            self._program = _spawn(launch, stdin)
        self.exited = os.pidfd_open(self._program.pid)
        self.stdout, self.stderr = _pipes(self._program)

    @property
    def exit_status(self) -> int | None:
        """The exit code, or a negative signal."""
        return self._program.returncode

    def read_status(self) -> bool:
        """There is no sandbox to tell anything."""
        return False

    def terminate(self) -> bool:
        """Ask the program to end."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._program.pid, signal.SIGTERM)
        return True

    def kill(self) -> None:
        """End the program and its process group; `finish` finds the others."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._program.pid, signal.SIGKILL)

    def finish(self) -> int:
        """End what became our child when its parent died, until nothing does."""
        self.kill()
        self._program.wait()
        if self._group is not None:
            left = self._group.end(_GONE_WITHIN_S)
            self.verified_by = EndVerification.CGROUP if left == 0 else None
            return left
        left = orphans.sweep(_GONE_WITHIN_S)
        self.verified_by = EndVerification.SUBREAPER if left == 0 else None
        return left

    def root(self) -> int | None:
        """This process itself, which has no other children."""
        return os.getpid()


@contextlib.contextmanager
def _gate(egress: Egress | None) -> Iterator[tuple[int | None, Callable[[], object]]]:
    """What holds back a program that has to wait for its way out, and what lets it go; leaving lets it go too."""
    if egress is None:
        yield None, lambda: None
        return
    reading, writing = os.pipe()
    try:
        yield reading, lambda: os.write(writing, b"x")
    finally:
        os.close(reading)
        os.close(writing)


def _spawn(launch: Launch, stdin: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        launch.argv,
        bufsize=0,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=launch.env,
        cwd=launch.cwd,
        pass_fds=launch.pass_fds,
        start_new_session=True,
    )


def _pipes(process: "subprocess.Popen[bytes]") -> tuple[int, int]:
    if process.stdout is None or process.stderr is None:
        raise RuntimeError("the program was started without pipes")
    fds = process.stdout.fileno(), process.stderr.fileno()
    for fd in fds:
        os.set_blocking(fd, False)
        with contextlib.suppress(OSError):  # a larger pipe is only faster, and a user may hold so many
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return fds


def _wait_readable(fd: int, timeout_s: float) -> bool:
    return bool(select.select([fd], [], [], timeout_s)[0])
