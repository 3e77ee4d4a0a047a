"""Whatever a node answers while it starts, stops, is full or has a fault that passes: no stage fails by it.

One server answers for the three node services of a cell, by a table. It lets every method fail first.
"""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from _pytest.mark import ParameterSet
from boatyard.execution.v1 import execution_pb2 as execution
from boatyard.git.v1 import git_pb2 as git
from boatyard.workspace.v1 import layout_pb2 as layout
from boatyard.workspace.v1 import workspace_pb2 as workspace
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from services.agent.settings import AgentSettings, CommandEngine
from services.common.db.outages import outage
from services.common.errors import Exhausted, FailedPrecondition, ServiceError, Unauthenticated, Unavailable
from services.common.rpc.status import DETAILS_METADATA_KEY, internal_status_proto, to_status_proto
from services.gateway.catalog.store import REPOSITORIES, CatalogStore
from services.gateway.values.catalog import Repository
from services.lifecycle.life import run_job
from services.lifecycle.model.outcome import Outcome, RetentionPeriods
from services.lifecycle.model.policy import Policy
from services.lifecycle.model.states import JobState
from services.lifecycle.nodes import Nodes, RetryLimits
from services.lifecycle.run import JobRun
from services.lifecycle.webhooks import Webhooks
from tests.contract.test_reasons import calls_of_jobs
from tests.kit.ledger import Books, claimed

BASE, RESULT = "a" * 40, "b" * 40
Answer = Message | list[Message]


@dataclass(frozen=True)
class Status:
    """What gRPC itself says, without details of ours."""

    code: grpc.StatusCode
    words: str


FAULTS: dict[str, Status | ServiceError | None] = {
    "not there": Status(grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses"),
    "draining": Unavailable("DRAINING", "it stops", retry_after=0.05),
    "its calls are cancelled": Status(grpc.StatusCode.CANCELLED, "CANCELLED"),
    "its connection breaks": Status(grpc.StatusCode.UNKNOWN, "Stream removed"),
    "its stream is reset": Status(grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2"),
    "an earlier version": Status(grpc.StatusCode.UNIMPLEMENTED, "Method not found!"),
    "started with another token": Unauthenticated("no", reason="CELL_TOKEN_REQUIRED"),
    "its database is locked": outage(),
    "no descriptor left": Unavailable("MACHINE_BUSY", "ask again"),
    "slow": Status(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"),
    "too many calls": Exhausted("TOO_MANY_CALLS", "try again", retry_after=0.05),
    "a busy repository": Exhausted("REPOSITORY_BUSY", "try again", retry_after=0.05),
    "a busy machine": Exhausted("NODE_BUSY", "try again", retry_after=0.05),
    "gRPC's own memory": Status(grpc.StatusCode.RESOURCE_EXHAUSTED, "memory quota exhausted"),
    "a sandbox that is ending": FailedPrecondition("WORKSPACE_HELD", "in use", "ws-1"),
    "a mount that is not back": FailedPrecondition("WORKSPACE_NOT_MOUNTED", "not yet", "ws-1"),
    "what nobody foresaw": None,  # INTERNAL, with a request's id
}


def ended(execution_id: str, *, code: int) -> execution.NodeExecution:
    states = execution.NodeExecution
    return states(
        execution_id=execution_id,
        state=states.STATE_FAILED if code else states.STATE_SUCCEEDED,
        reason="AGENT_FAILED" if code else "",
        exit_code=code,
        last_sequence=1,
    )


@dataclass
class Cell:
    """Answers each method `failures` times by its fault, and then as a cell does whose agent ends with a code."""

    fault: Status | ServiceError | None
    failures: int = 1
    code: int = 0
    asked: Counter[str] = field(default_factory=Counter)
    remotes: list[git.Remote] = field(default_factory=list)

    def answer(self, method: str, request: Any) -> Answer:
        base = git.Base(commit_id=BASE, layers=["/nowhere"], pins_path="/nowhere", head_commit_id=BASE)
        if hasattr(request, "remote"):
            self.remotes.append(request.remote)
        snapshot = git.Snapshot(snapshot_id="snap-1", base_commit_id=BASE, commit_id=RESULT)
        match method:
            case "PrepareBase":
                return [git.PrepareBaseResponse(progress=git.Progress(phase="x")), git.PrepareBaseResponse(base=base)]
            case "CreateWorkspace":
                made = workspace.Workspace(workspace_id=request.workspace_id, layout=layout.Layout(path="/nowhere"))
                return workspace.CreateWorkspaceResponse(workspace=made)
            case "StartExecution":
                return execution.StartExecutionResponse(execution=ended(request.execution_id, code=self._code(request)))
            case "WaitExecution" | "GetExecution":
                response = getattr(execution, f"{method}Response")
                return response(execution=ended(request.execution_id, code=self._code(request)))  # type: ignore[no-any-return]
            case "TakeResult":
                return git.TakeResultResponse(commit_id=RESULT, changed=True)
            case "SnapshotTree":
                return git.SnapshotTreeResponse(snapshot=snapshot)
            case "GetDiff":
                return [git.GetDiffResponse(data=b"+x\n"), git.GetDiffResponse(data=b"+y\n")]
            case "Push":
                return [git.PushResponse(progress=git.Progress(phase="x")), git.PushResponse(pushed=git.Pushed())]
            case "WatchEvents":
                return []
        raise NotImplementedError  # an answer without fields will do

    def _code(self, request: Any) -> int:
        return 0 if request.execution_id.endswith("-verify") else self.code

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        return [
            grpc.method_handlers_generic_handler(
                service.full_name, {method.name: self._handler(method) for method in service.methods}
            )
            for file in (git, workspace, execution)
            for service in file.DESCRIPTOR.services_by_name.values()
        ]

    def _handler(self, method: Any) -> Any:
        request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)

        async def answered(message: Message, context: Any) -> Answer:
            self.asked[method.name] += 1
            if self.asked[method.name] <= self.failures:
                await self._fail(context)
            try:
                return self.answer(method.name, message)
            except NotImplementedError:
                return response()

        async def stream(message: Message, context: Any) -> AsyncIterator[Message]:
            for each in await answered(message, context):  # type: ignore[union-attr]
                yield each

        make = grpc.unary_stream_rpc_method_handler if method.server_streaming else grpc.unary_unary_rpc_method_handler
        behaviour: Any = stream if method.server_streaming else answered
        return make(behaviour, request.FromString, lambda each: each.SerializeToString())

    async def _fail(self, context: Any) -> None:
        if isinstance(self.fault, Status):
            await context.abort(self.fault.code, self.fault.words)
        status = internal_status_proto("r-1") if self.fault is None else to_status_proto(self.fault, "r-1")
        code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
        await context.abort(code, status.message, ((DETAILS_METADATA_KEY, status.SerializeToString()),))


async def run(book: Books, cell: Cell, limits: RetryLimits | None = None) -> Outcome:
    """Have a cell run a job that is checked, whose files are kept, and that is pushed."""
    remote: dict[str, Any] = {"url": "https://git.example/r", "token": "t", "ca": "PEM", "push_options": ("a", "b=c")}
    repository = Repository(repository_id="r", project_id="default", create_time=datetime.now(UTC), **remote)
    await CatalogStore(book.engine).create(REPOSITORIES, repository)
    policy = Policy(verify_command="true", artifacts=("*.log",), max_attempts=1)
    agent = AgentSettings(engine=CommandEngine(line="true"))
    await book.admit(repository_id="r", policy=policy, agent=agent)
    ledger = await book.cell("cell")
    async with serving(cell) as channel:
        nodes = Nodes(channel, channel, channel, limits or RetryLimits())
        job = JobRun(await claimed(ledger), ledger, nodes, Webhooks(), RetentionPeriods())
        outcome = await run_job(job)
    assert outcome is not None
    assert all(each == git.Remote(repository_id="r", **remote) for each in cell.remotes)
    return outcome


@asynccontextmanager
async def serving(cell: Cell) -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(tuple(cell.handlers()))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(grace=0)


def deep(soon: set[str]) -> list[ParameterSet]:
    """Return all faults, of which some are tried soon, and all at greater depth."""
    return [pytest.param(each, marks=() if each in soon else pytest.mark.slow) for each in FAULTS]


@pytest.mark.parametrize("fault", deep({"its stream is reset"}))
async def test_a_job_whose_every_call_fails_first_succeeds(book: Books, fault: str) -> None:
    cell = Cell(FAULTS[fault])
    assert await run(book, cell) == Outcome(JobState.SUCCEEDED)
    of_others = {"SnapshotTree", "UpdateWorkspaceState", "StopExecution", "PrepareEmptyBase", "DescribeNode"}
    assert {name for _, name in calls_of_jobs()} - set(cell.asked) == of_others
    once = {"CheckPush"} if fault == "an earlier version" else set()
    assert {name for name, times in cell.asked.items() if times < 2} == once


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["its stream is reset", "draining", "an earlier version", "what nobody foresaw"])
async def test_what_a_failed_agent_leaves_is_kept_all_the_same(book: Books, fault: str) -> None:
    cell = Cell(FAULTS[fault], code=3)
    outcome = await run(book, cell)
    assert outcome.failure is not None
    assert outcome.failure.reason == "AGENT_FAILED"
    assert cell.asked["SnapshotTree"] == cell.asked["UpdateWorkspaceState"] == 2


@pytest.mark.parametrize("fault", deep({"not there", "what nobody foresaw"}))
async def test_what_does_not_pass_is_a_lost_node_or_has_a_line_in_a_log(book: Books, fault: str) -> None:
    impatient = RetryLimits(away=0.0, full=0.0, broken=0.0)
    outcome = await run(book, Cell(FAULTS[fault], failures=1_000_000), impatient)
    assert outcome.failure is not None
    assert outcome.failure.reason == ("INTERNAL" if FAULTS[fault] is None else "NODE_LOST")
