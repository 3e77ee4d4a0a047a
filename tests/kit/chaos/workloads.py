"""What jobs are asked to do, and how each must end. An agent is a line for /bin/sh with known behaviour."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from boatyard.agent.v1.agent_pb2 import AgentSettings, CommandEngine
from boatyard.gateway.v1 import job_pb2, policy_pb2
from google.protobuf.duration_pb2 import Duration

MARK = "BOATYARD_CHAOS"
"""A variable in the environment of every agent, and so of everything that it starts."""
NUMBER = "chaos-number"
"""The label that identifies a job, whatever its id."""
CAN_BE_LOST = frozenset({"NODE_LOST", "RUNNER_LOST", "SANDBOX_FAILED"})
"""Why a job may fail that should not: only if all of its attempts were lost for these reasons."""
MAX_ATTEMPTS = 3

# An agent's own files may have no room either: each is written until it is.
_NOTED = "until echo started >> starts.txt; do sleep 0.3; done"
_LINES = 60
_COUNTED = f"for i in $(seq {_LINES}); do echo line $i; sleep 0.03; done"
_COUNT = b"".join(b"line %d\n" % number for number in range(1, _LINES + 1))
_FICKLE = "until od -An -N8 -tx1 /dev/urandom > fickle.txt; do sleep 0.3; done"
# It leaves its session, closes its standard streams, and ignores TERM and HUP.
_DAEMON = "setsid -f sh -c \"trap '' TERM HUP; exec 0</dev/null 1>/dev/null 2>/dev/null; sleep 600\""


@dataclass(frozen=True)
class Workload:
    """One sort of job. `output` is all that its agent writes, in each attempt that was not lost."""

    name: str
    command: str
    weight: int = 2
    state: str = "SUCCEEDED"
    reason: str = ""
    pushes: bool = False
    output: bytes | None = None
    project_id: str = "default"
    has_repository: bool = True
    is_vetoed: bool = False
    timeout: int = 0
    output_bytes: int = 0
    verify: str = ""
    keeps: bool = False
    kind: str = "task"
    answer: str = ""
    """What people answer to its questions: `approve`, `reject`, `revise` (once, then `approve`), or nothing."""
    expires: int = 0
    delay: int = 0
    is_fed: bool = False
    """True when it gets a file and data to work on."""
    cancelled_within: float = 0.0
    """It is cancelled within so many seconds after its submission; 0 means never."""
    may_outrun_cancel: bool = False
    files: dict[str, str] = field(default_factory=dict)
    """Files, with their content, that must be on its branch."""


WORKLOADS: Sequence[Workload] = (
    Workload(
        "edit",
        f"{_NOTED}; echo done",
        weight=4,
        pushes=True,
        output=b"done\n",
        files={"starts.txt": "started"},
    ),
    Workload("count", f"{_NOTED}; {_COUNTED}", weight=5, pushes=True, output=_COUNT, files={"starts.txt": "started"}),
    # What a model writes is never the same twice: another attempt has another result.
    Workload("fickle", f"{_NOTED}; {_FICKLE}; echo x", weight=3, pushes=True, output=b"x\n"),
    Workload(
        "checked",
        f"{_NOTED}; echo done",
        pushes=True,
        output=b"done\n",
        verify="grep -qx started starts.txt; sleep 0.5",
        files={"starts.txt": "started"},
    ),
    Workload(
        "daemon", f"{_DAEMON}; {_NOTED}; echo done", pushes=True, output=b"done\n", files={"starts.txt": "started"}
    ),
    Workload("nothing", "echo looked around", output=b"looked around\n"),
    Workload(
        "empty",
        'prompt=$(cat); until echo "$prompt" > prompt.txt; do sleep 0.3; done; echo done',
        output=b"done\n",
        has_repository=False,
    ),
    Workload("fed", "cat .boatyard/input/in/numbers.txt $BOATYARD_INPUT", output=b"1 2 3\n{}", is_fed=True),
    Workload(
        "delayed", f"{_NOTED}; echo done", pushes=True, output=b"done\n", delay=5, files={"starts.txt": "started"}
    ),
    Workload(
        "approved",
        f"{_NOTED}; echo done",
        kind="code-generation",
        answer="approve",
        pushes=True,
        output=b"done\n",
        files={"starts.txt": "started"},
    ),
    Workload(
        "processed",
        f"{_NOTED}; {_FICKLE}; echo x",
        kind="data-processing",
        answer="approve",
        pushes=True,
        output=b"x\n",
        files={"starts.txt": "started"},
    ),
    Workload(
        "revised",
        f"{_NOTED}; echo done",
        kind="code-generation",
        answer="revise",
        pushes=True,
        output=b"done\n",
        files={"starts.txt": "started\nstarted"},
    ),
    Workload(
        "rejected", _NOTED, kind="code-generation", answer="reject", state="FAILED", reason="REJECTED", output=b""
    ),
    Workload("expired", _NOTED, kind="code-generation", expires=2, state="FAILED", reason="EXPIRED", output=b""),
    Workload("withdrawn", _NOTED, kind="code-generation", state="CANCELLED", cancelled_within=10),
    Workload("fails", "echo trying; exit 3", state="FAILED", reason="AGENT_FAILED", output=b"trying\n", keeps=True),
    Workload("unchecked", _NOTED, state="FAILED", reason="VERIFY_FAILED", output=b"", verify="echo no; exit 1"),
    Workload("slow", "echo waiting; sleep 600", state="FAILED", reason="TIMED_OUT", output=b"waiting\n", timeout=2),
    Workload("flood", "yes | head -c 1000000", state="FAILED", reason="OUTPUT_LIMIT", output_bytes=4096),
    Workload(
        "vetoed", _NOTED, state="FAILED", reason="VETOED", project_id="guarded", has_repository=False, is_vetoed=True
    ),
    Workload("cancelled", "echo waiting; sleep 600", weight=3, state="CANCELLED", cancelled_within=8),
    Workload("raced", f"{_NOTED}; {_COUNTED}", pushes=True, cancelled_within=6, may_outrun_cancel=True),
)


def draw_workloads(rng: random.Random, count: int) -> list[Workload]:
    """Return `count` workloads: each at least once if there is room, the rest by weight."""
    first = list(WORKLOADS[:count])
    rest = rng.choices(WORKLOADS, [workload.weight for workload in WORKLOADS], k=count - len(first))
    drawn = [*first, *rest]
    rng.shuffle(drawn)
    return drawn


def job_spec(workload: Workload, number: int, mark: str, repository_id: str, priority: int) -> job_pb2.JobSpec:
    """Return the spec of a job with this workload."""
    agent = AgentSettings(command=CommandEngine(line=workload.command), environment={MARK: mark})
    if workload.timeout:
        agent.timeout.CopyFrom(Duration(seconds=workload.timeout))
    if workload.output_bytes:
        agent.output_bytes = workload.output_bytes
    policy = policy_pb2.Policy()
    if not workload.keeps:
        policy.retention = policy_pb2.Policy.RETENTION_REMOVE
    if workload.expires:
        policy.checkpoint_timeout.CopyFrom(Duration(seconds=workload.expires))
    if workload.verify:
        policy.verify_command = workload.verify
    more: dict[str, Any] = {"repository_id": repository_id} if workload.has_repository else {}
    if workload.is_fed:
        more |= {"files": [job_pb2.InputFile(name="in/numbers.txt", content=b"1 2 3\n")], "data": b"{}"}
    if workload.delay:
        more["delay"] = Duration(seconds=workload.delay)
    return job_pb2.JobSpec(
        project_id=workload.project_id,
        kind=workload.kind,
        prompt=f"{workload.name} {number}",
        priority=priority,
        agent=agent,
        policy=policy,
        labels={NUMBER: str(number)},
        **more,
    )
