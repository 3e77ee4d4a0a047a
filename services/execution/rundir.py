"""The directory through which the service and a runner know of each other. Standard library only.

lock      held by the runner for life (POSIX, so that its holder's pid can be asked for)
plan      what to run; it may hold secrets, so the runner deletes it when it has read it, or, where a new runner
          could go on for a lost one (a model's execution), when the run has ended
task      what a model is asked, where that is the agent; it goes with the plan
stdin     the program's standard input, if it gets any
started   made by the runner before it starts the program: whoever finds it, and no holder, and no result,
          knows that the runner was lost
lives     how many runners have set about carrying a model's execution
keyboard  what is typed on the program's terminal, where it has one: a named pipe, which the runner reads
history   a model's conversation, as far as it has come; secrets may be in it, and it goes with the plan
talk      what people say to a model, and what it asks (`talk`)
group     the directories of its control group, if it has one
engine    the client of the engine that may have a container of it: see `containers`
container what that container speaks with us through
stop      made by the service when the program shall end
events    the event log
result    how it ended; durable before the lock is released
diary     what the runner itself had to complain about
home      HOME of a program without a sandbox
"""

import contextlib
import fcntl
import hashlib
import json
import os
import signal
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from services.execution.documents import plan_from_json, plan_to_json, result_from_json, result_to_json
from services.execution.files import write_whole
from services.execution.model import MARK, ModelTask, Plan, Result
from services.execution.talk import Talk
from services.sandbox.spec import Tier

MAX_LIVES = 4
"""Runners that may carry one execution, the first included."""

_FLOCK = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux: type, whence, start, length, pid


@dataclass(frozen=True, slots=True)
class StopRequest:
    """End the program: politely, and after `grace_s` seconds certainly."""

    grace_s: float


class RunDirectory:
    """One execution's directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events = path / "events"
        self.stdin = path / "stdin"
        self.diary = path / "diary"
        self.home = path / "home"
        self.history = path / "history"
        self.keyboard = path / "keyboard"
        self._lock = path / "lock"
        self._plan = path / "plan"
        self._task = path / "task"
        self._started = path / "started"
        self._lives = path / "lives"
        self._group = path / "group"
        self._stop = path / "stop"
        self._result = path / "result"

    # What the service does.

    def create(self, plan: Plan, stdin: bytes) -> None:
        """Make the directory (0700) with what a runner needs."""
        self.path.mkdir(mode=0o700)
        self._write(self._plan, plan_to_json(plan))
        if plan.task is not None:
            self._write(self._task, asdict(plan.task))
            Talk(self.path).create()
        if plan.terminal is not None:
            os.mkfifo(self.keyboard, 0o600)
        if stdin:
            write_whole(self.stdin, stdin)

    def holder(self) -> int | None:
        """The pid of the living runner, or None."""
        try:
            fd = os.open(self._lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, question))
        finally:
            os.close(fd)
        return None if kind == fcntl.F_UNLCK else pid

    def request_stop(self, request: StopRequest) -> None:
        """Tell the runner to end its program. A runner that is not there yet will find the request."""
        self._write(self._stop, asdict(request))
        pid = self.holder()
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid)
            try:
                if self.holder() == pid:  # it still is the runner, so the descriptor is the runner's
                    signal.pidfd_send_signal(pidfd, signal.SIGTERM)
            finally:
                os.close(pidfd)

    def started_time_ns(self) -> int | None:
        """When a runner set about starting the program, which must then not be started again; None if none has."""
        try:
            return int(self._started.read_text())
        except FileNotFoundError:
            return None

    def lives(self) -> int:
        """How many runners have set about carrying a model's execution; always 0 for a program's."""
        try:
            return int(self._lives.read_text())
        except FileNotFoundError:
            return 0

    def may_resume(self) -> bool:
        """Whether a new runner may go on where a lost one was: a model can, a program cannot."""
        return 0 < self.lives() < MAX_LIVES and self._plan.exists()

    def is_contained(self) -> bool:
        """Whether the program is to run in a container."""
        return self.plan().sandbox.tier is Tier.CONTAINER

    def needs_model(self) -> bool:
        """Whether the runner needs what reaches a model."""
        return self._task.exists()

    def result(self) -> Result | None:
        """How the run ended; None while it has not, and when its runner was lost."""
        try:
            fields = json.loads(self._result.read_text())
        except FileNotFoundError:
            return None
        return result_from_json(fields)

    # What the holder of the lock does: the runner, or the service in place of a lost one.

    def hold(self) -> int | None:
        """Take the lock until the process ends or the returned descriptor is closed; None when somebody has it."""
        fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return fd

    @property
    def mark(self) -> str:
        """What this run's processes, and no others on the machine, have in the variable `MARK`."""
        return hashlib.blake2s(os.fsencode(self.path.resolve()), digest_size=16).hexdigest()

    def plan(self) -> Plan:
        """Read what to run, before `mark_started` or `forget_plan`."""
        plan = plan_from_json(json.loads(self._plan.read_text()))
        marked = {**plan.sandbox.environment, MARK: self.mark.encode()}
        plan = replace(plan, sandbox=replace(plan.sandbox, environment=marked))
        return replace(plan, task=ModelTask(**json.loads(self._task.read_text()))) if self.needs_model() else plan

    def mark_started(self, time_ns: int) -> None:
        """Say that from now on a program may be running, and forget the plan."""
        write_whole(self._started, b"%d" % time_ns)
        self.forget_plan()

    def begin_life(self, time_ns: int) -> int:
        """Say that a runner sets about carrying a model's execution; return how many have, this one included."""
        if self.started_time_ns() is None:
            write_whole(self._started, b"%d" % time_ns)
        lives = self.lives() + 1
        write_whole(self._lives, b"%d" % lives)
        return lives

    def record_group(self, directories: Mapping[str, Path]) -> None:
        """Write down where the run's processes are, before there is one."""
        self._write(self._group, {task: str(path) for task, path in directories.items()})

    def group(self) -> dict[str, str]:
        """Where the run's processes are; empty without control groups."""
        try:
            fields: dict[str, str] = json.loads(self._group.read_text())
        except FileNotFoundError:
            return {}
        return fields

    def forget_plan(self) -> None:
        """Delete the plan, the secrets in it, and the right to begin again with it."""
        self._plan.unlink(missing_ok=True)
        self._task.unlink(missing_ok=True)
        self.history.unlink(missing_ok=True)

    def stop_request(self) -> StopRequest | None:
        """What the service asks for, if it does."""
        try:
            return StopRequest(**json.loads(self._stop.read_text()))
        except FileNotFoundError:
            return None

    def write_result(self, result: Result) -> None:
        """Write the result, durably."""
        self._write(self._result, result_to_json(result), durable=True)

    def _write(self, path: Path, fields: dict[str, Any], *, durable: bool = False) -> None:
        write_whole(path, json.dumps(fields).encode(), durable=durable)
