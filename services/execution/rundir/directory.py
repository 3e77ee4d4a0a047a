"""The directory through which the service and a runner know of each other. Standard library only.

lock      held by the runner as long as it lives (a POSIX lock, because the kernel tells the pid of its holder)
plan      what to run; it may hold secrets, so the runner deletes it when it has read it, or, where a new runner can
          continue for a lost one, when the run has ended
task      what the engine is asked to do, if it needs to know more than the plan says; deleted with the plan
stdin     the program's standard input, if it gets any
started   written by the runner before it starts the program; with neither a lock holder nor a result, it means that the
          runner was lost
lives     how many runners have begun this execution, where a new one can continue for a lost one
keyboard  what is typed on the program's terminal, if it has one: a named pipe, which the runner reads
history   an agent loop's conversation, with which a new runner continues; it may hold secrets; deleted with the plan
asks      what the execution asks before it goes on, and the answers: see `inbox.asks`
talk      the inbox: messages for an agent, its questions, and their answers; see `inbox.messages`
group     the directories of the run's control group, if it has one
engine    the client of the container engine that may have a container of this run: see `processes.containers`
container the files through which that container communicates with us
stop      written by the service when the program shall end
events    the event log
result    how the run ended; durable before the lock is released
diary     the runner's own standard error
home      TMPDIR of a program without a sandbox, and its HOME, unless that is kept for its job
recording what the agent asked of models, and what they answered, if that is recorded
replay    the recording that answers in place of models, and `replay.played`, what of it has been played; both are
          deleted when the run has ended
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

from services.agent.recordings import unpacked
from services.common.files import release, reserve, write_whole
from services.execution.eventlog import allocation
from services.execution.model import MARK, Plan, Result
from services.execution.rundir.documents import (
    engine_of,
    plan_from_json,
    plan_to_json,
    result_from_json,
    result_to_json,
)

MAX_LIVES = 4
"""How many runners may begin one execution, including the first."""

_FLOCK = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux: type, whence, start, length, pid


@dataclass(frozen=True, slots=True)
class StopRequest:
    """End the program: politely at first, and by force after `grace_s` seconds."""

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
        self.recording = path / "recording"
        self.replay = path / "replay"
        self.terminal_input = path / "keyboard"
        self._lock = path / "lock"
        self._plan = path / "plan"
        self._task = path / "task"
        self._started = path / "started"
        self._lives = path / "lives"
        self._group = path / "group"
        self._stop = path / "stop"
        self._result = path / "result"
        self._reserves = {self._started: 32, self._lives: 32, self._group: 2048, self._stop: 128, self._result: 32768}

    # What the service does.

    def create(self, plan: Plan, stdin: bytes, recording: bytes = b"") -> None:
        """Make the directory (0700) with all that a runner needs, and room for all that it and we write without fail.

        Raises OSError when the disk has no room for that, and RecordingError for what is no recording; the directory is
        then incomplete.
        """
        self.path.mkdir(mode=0o700)
        self._reserve()
        self._write(self._plan, plan_to_json(plan))
        if plan.task is not None:
            self._write(self._task, dict(plan.task))
        if plan.terminal is not None:
            os.mkfifo(self.terminal_input, 0o600)
        if stdin:
            write_whole(self.stdin, stdin)
        if recording:
            with self.replay.open("xb") as file:
                file.writelines(unpacked(recording))

    def _reserve(self) -> None:
        """Set aside what is needed to start, stop and end this run on a disk that is full by then."""
        for path, size in self._reserves.items():
            reserve(path, size)
        for path in (self._lock, self.diary, self.events):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if path == self.events:
                    allocation.begin(fd)
            finally:
                os.close(fd)

    def holder(self) -> int | None:
        """Return the pid of the living runner, None when there is none."""
        try:
            fd = os.open(self._lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            query = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, query))
        finally:
            os.close(fd)
        return None if kind == fcntl.F_UNLCK else pid

    def request_stop(self, request: StopRequest) -> None:
        """Ask the runner to end its program. A runner that has not begun yet finds the request when it does."""
        self._write(self._stop, asdict(request))
        pid = self.holder()
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid)
            try:
                if self.holder() == pid:  # the pid is still the runner's, so the descriptor is too
                    signal.pidfd_send_signal(pidfd, signal.SIGTERM)
            finally:
                os.close(pidfd)

    def started_time_ns(self) -> int | None:
        """Return when a runner began to start the program, after which no other may start it; None when none has."""
        try:
            return int(self._started.read_text())
        except FileNotFoundError:
            return None

    def lives(self) -> int:
        """Return how many runners have begun this run; 0 if its engine cannot continue for a lost runner."""
        try:
            return int(self._lives.read_text())
        except FileNotFoundError:
            return 0

    def may_resume(self) -> bool:
        """True when a new runner may continue for a lost one, which not every engine can."""
        return 0 < self.lives() < MAX_LIVES and self._plan.exists()

    def engine(self) -> str | None:
        """Return the engine that drives the agent; None when the plan is gone, and no runner can begin any more."""
        try:
            fields = json.loads(self._plan.read_text())
        except FileNotFoundError:
            return None
        return engine_of(fields, has_task=self._task.exists())

    def has_door(self) -> bool:
        """True when a runner is still to begin that must be given providers of models."""
        try:
            plan = json.loads(self._plan.read_text())
        except FileNotFoundError:
            return False
        return bool(plan.get("has_door")) and not plan.get("replay")

    def forget_replay(self) -> None:
        """Delete the recording that was replayed."""
        for path in (self.replay, self.replay.with_name("replay.played")):
            path.unlink(missing_ok=True)

    def result(self) -> Result | None:
        """Return how the run ended; None while it has not ended, and when its runner was lost."""
        try:
            fields = json.loads(self._result.read_text())
        except FileNotFoundError:
            return None
        return result_from_json(fields)

    # What the holder of the lock does: the runner, or the service in place of a lost one.

    def hold(self) -> int | None:
        """Take the lock until the process ends or the returned descriptor is closed; None when another holds it."""
        fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return fd

    @property
    def mark(self) -> str:
        """The value of the variable `MARK` in this run's processes, and in no others on the machine."""
        return hashlib.blake2s(os.fsencode(self.path.resolve()), digest_size=16).hexdigest()

    def plan(self) -> Plan:
        """Read what to run. To be called before `mark_started` and `delete_plan`."""
        task = json.loads(self._task.read_text()) if self._task.exists() else None
        plan = plan_from_json(json.loads(self._plan.read_text()), task)
        marked = {**plan.sandbox.environment, MARK: self.mark.encode()}
        return replace(plan, sandbox=replace(plan.sandbox, environment=marked))

    def mark_started(self, time_ns: int) -> None:
        """Record that from now on a program may be running, and delete the plan."""
        write_whole(self._started, b"%d" % time_ns)
        self.delete_plan()

    def begin_life(self, time_ns: int) -> int:
        """Record that a runner begins a run that another could continue; return how many have, including this one."""
        if self.started_time_ns() is None:
            write_whole(self._started, b"%d" % time_ns)
        lives = self.lives() + 1
        write_whole(self._lives, b"%d" % lives)
        return lives

    def record_group(self, directories: Mapping[str, Path]) -> None:
        """Record the control group of the run's processes, before there is one."""
        self._write(self._group, {controller: str(path) for controller, path in directories.items()})

    def group(self) -> dict[str, str]:
        """Return the directories of the run's control group, by controller; empty without control groups."""
        try:
            fields: dict[str, str] = json.loads(self._group.read_text())
        except FileNotFoundError:
            return {}
        return fields

    def delete_plan(self) -> None:
        """Delete the plan, and with it its secrets and the possibility to begin again."""
        self._plan.unlink(missing_ok=True)
        self._task.unlink(missing_ok=True)
        self.history.unlink(missing_ok=True)

    def stop_request(self) -> StopRequest | None:
        """Return the service's request to stop, None when there is none."""
        try:
            return StopRequest(**json.loads(self._stop.read_text()))
        except FileNotFoundError:
            return None

    def write_result(self, result: Result) -> None:
        """Write the result, durably, and give up what was set aside for the rest."""
        self._write(self._result, result_to_json(result), durable=True)
        for path in self._reserves:
            release(path)

    def _write(self, path: Path, fields: dict[str, Any], *, durable: bool = False) -> None:
        write_whole(path, json.dumps(fields).encode(), durable=durable)
