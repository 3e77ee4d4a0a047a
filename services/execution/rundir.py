"""The directory through which the service and a runner know of each other. Standard library only.

lock      held by the runner for life (POSIX, so that its holder's pid can be asked for)
plan      what to run; it may hold secrets, so the runner deletes it when it has read it, or, where a new runner
          could go on for a lost one (a model's execution), when the run has ended
task      what a model is asked, where that is the agent; it goes with the plan
stdin     the program's standard input, if it gets any
started   made by the runner before it starts the program: whoever finds it, and no holder, and no result,
          knows that the runner was lost
lives     how many runners have set about carrying a model's execution
history   a model's conversation, as far as it has come
group     the directories of its control group, if it has one
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
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any, TypeVar

from services.common.sandbox.spec import Access, Limits, Mount, Network, Overlay, SandboxSpec, Tier
from services.execution.model import MARK, Bounds, EndVerification, ModelTask, ModelUse, Plan, Result, State, Vitals

MAX_LIVES = 4
"""Runners that may carry one execution, the first included."""

_T = TypeVar("_T")

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
        self._write(self._plan, _plan_to_json(plan))
        if plan.task is not None:
            self._write(self._task, asdict(plan.task))
        if stdin:
            self._write_bytes(self.stdin, stdin)

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

    def needs_model(self) -> bool:
        """Whether the runner needs what reaches a model."""
        return self._task.exists()

    def result(self) -> Result | None:
        """How the run ended; None while it has not, and when its runner was lost."""
        try:
            fields = json.loads(self._result.read_text())
        except FileNotFoundError:
            return None
        return _result_from_json(fields)

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
        plan = _plan_from_json(json.loads(self._plan.read_text()))
        marked = {**plan.sandbox.environment, MARK: self.mark.encode()}
        plan = replace(plan, sandbox=replace(plan.sandbox, environment=marked))
        return replace(plan, task=ModelTask(**json.loads(self._task.read_text()))) if self.needs_model() else plan

    def mark_started(self, time_ns: int) -> None:
        """Say that from now on a program may be running, and forget the plan."""
        self._write_bytes(self._started, b"%d" % time_ns)
        self.forget_plan()

    def begin_life(self, time_ns: int) -> int:
        """Say that a runner sets about carrying a model's execution; return how many have, this one included."""
        if self.started_time_ns() is None:
            self._write_bytes(self._started, b"%d" % time_ns)
        lives = self.lives() + 1
        self._write_bytes(self._lives, b"%d" % lives)
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

    def stop_request(self) -> StopRequest | None:
        """What the service asks for, if it does."""
        try:
            return StopRequest(**json.loads(self._stop.read_text()))
        except FileNotFoundError:
            return None

    def write_result(self, result: Result) -> None:
        """Write the result, durably."""
        self._write(self._result, asdict(result), durable=True)

    def _write(self, path: Path, fields: dict[str, Any], *, durable: bool = False) -> None:
        self._write_bytes(path, json.dumps(fields).encode(), durable=durable)

    def _write_bytes(self, path: Path, content: bytes, *, durable: bool = False) -> None:
        """Let a file appear whole or not at all."""
        temporary = path.with_name(path.name + ".new")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.rename(path)
        if durable:
            fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


def _plan_to_json(plan: Plan) -> dict[str, Any]:
    spec = plan.sandbox
    return {
        "execution_id": plan.execution_id,
        "bounds": asdict(plan.bounds),
        "argv": [_text(part) for part in spec.argv],
        "cwd": str(spec.cwd),
        "mounts": [_mount_to_json(mount) for mount in spec.mounts],
        "environment": {name: _text(value) for name, value in spec.environment.items()},
        "network": spec.network,
        "limits": asdict(spec.limits),
        "tier": spec.tier,
        "secret_names": plan.secret_names,
    }


def _plan_from_json(fields: dict[str, Any]) -> Plan:
    return Plan(
        fields["execution_id"],
        SandboxSpec(
            argv=tuple(_bytes(part) for part in fields["argv"]),
            cwd=Path(fields["cwd"]),
            mounts=tuple(_mount_from_json(mount) for mount in fields["mounts"]),
            environment={name: _bytes(value) for name, value in fields["environment"].items()},
            network=Network(fields["network"]),
            limits=Limits(**_known(Limits, fields["limits"])),
            tier=Tier(fields["tier"]),
        ),
        Bounds(**_known(Bounds, fields["bounds"])),
        secret_names=tuple(fields.get("secret_names", ())),
    )


def _result_from_json(fields: dict[str, Any]) -> Result:
    """Read what a runner wrote that may be older or newer than we are: we know no more than it says, or less."""
    known = _known(Result, fields)
    verified = known.get("end_verified_by")
    return Result(
        **known
        | {
            "state": State(known["state"]),
            "model_use": _maybe(ModelUse, known.get("model_use")),
            "end_verified_by": None if verified is None else EndVerification(verified),
            "vitals": _maybe(Vitals, known.get("vitals")),
        }
    )


def _known(kind: type, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that this version knows."""
    return {field.name: fields[field.name] for field in dataclass_fields(kind) if field.name in fields}


def _maybe(kind: type[_T], fields: dict[str, Any] | None) -> _T | None:
    return None if fields is None else kind(**_known(kind, fields))


def _mount_to_json(mount: Mount | Overlay) -> dict[str, Any]:
    if isinstance(mount, Overlay):
        return {
            "lowers": [str(lower) for lower in mount.lowers],
            "upper": _optional(mount.upper),
            "work": _optional(mount.work),
            "target": str(mount.target),
            "mounted": _optional(mount.mounted),
            "holder": mount.holder,
        }
    return {"source": str(mount.source), "target": str(mount.target or mount.source), "access": mount.access}


def _mount_from_json(fields: dict[str, Any]) -> Mount | Overlay:
    if "lowers" in fields:
        return Overlay(
            lowers=tuple(Path(lower) for lower in fields["lowers"]),
            upper=_optional_path(fields["upper"]),
            work=_optional_path(fields["work"]),
            target=Path(fields["target"]),
            mounted=_optional_path(fields["mounted"]),
            holder=fields["holder"],
        )
    return Mount(Path(fields["source"]), Path(fields["target"]), Access(fields["access"]))


def _optional(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _optional_path(path: str | None) -> Path | None:
    return None if path is None else Path(path)


def _text(value: bytes) -> str:
    return value.decode("latin-1")  # a character a byte, and back


def _bytes(value: str) -> bytes:
    return value.encode("latin-1")
