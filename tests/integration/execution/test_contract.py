"""The errors that callers get for calls that cannot be carried out."""

import asyncio
from pathlib import Path

import grpc
import pytest
from boatyard.agent.v1.agent_pb2 import AgentSettings, CommandEngine
from boatyard.execution.v1 import execution_pb2 as pb
from boatyard.workspace.v1 import layout_pb2
from google.protobuf.duration_pb2 import Duration

from services.common.errors import (
    AlreadyExists,
    Exhausted,
    FailedPrecondition,
    Invalid,
    NotFound,
    OutOfRange,
    ServiceError,
)
from services.common.fence import Fence
from services.common.ids import new_id
from services.common.rpc.channel import fence_metadata
from services.common.rpc.status import service_error
from tests.integration.execution.service import Client, State, running


async def refused(call) -> ServiceError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return service_error(caught.value)


async def test_layers_that_are_not_mounted_yet_are_no_failed_execution(shared: Client, tmp_path: Path) -> None:
    lower, upper, work, place = (tmp_path / name for name in ("lower", "upper", "work", "place"))
    for directory in (lower, upper, work, place):
        directory.mkdir()
    layers = layout_pb2.Layers(lowers=[str(lower)], upper=str(upper), work=str(work), mounted_path=str(place))
    execution_id = new_id("exec")
    error = await refused(shared.start(execution_id, "true", layout=layout_pb2.Layout(layers=layers)))
    assert isinstance(error, FailedPrecondition)
    assert error.reason == "WORKSPACE_NOT_MOUNTED", "the driver asks again: its service is about to mount them"
    assert isinstance(await refused(shared.get(execution_id)), NotFound), "the id is free to be asked for again"


async def test_all_that_is_wrong_is_said_at_once(shared: Client) -> None:
    home = shared.service.home
    spec = pb.ExecutionSpec(
        job_id="No Id",
        layout=layout_pb2.Layout(path="relative"),
        read_only_paths=[str(home), str(home / "execution" / "runs"), "/usr"],
        agent=AgentSettings(command=CommandEngine(prompt_delivery=2)),
        prompt="a\0b",
        environment={"A=B": ""},
    )
    error = await refused(shared.stub.StartExecution(pb.StartExecutionRequest(execution_id="UPPER", spec=spec)))
    assert isinstance(error, Invalid)
    assert {field for field, _ in error.violations} == {
        "execution_id",
        "spec.job_id",
        "spec.purpose",
        "spec.layout.path",
        "spec.read_only_paths[0]",
        "spec.read_only_paths[1]",
        "spec.agent.command.line",
        "spec.prompt",
        'spec.environment["A=B"]',
    }


async def test_all_that_is_wrong_with_an_agents_settings_is_said_at_once(shared: Client) -> None:
    settings = AgentSettings(
        command=CommandEngine(line="-x\0"),
        environment={"A=B": ""},
        timeout=Duration(seconds=-1),
        idle_timeout=Duration(),
        processes=0,
        sandbox_tier=77,
    )
    error = await refused(shared.start(new_id("bad"), "", agent=settings))
    assert isinstance(error, Invalid)
    names = ("command.line", 'environment["A=B"]', "timeout", "idle_timeout", "processes", "sandbox_tier")
    assert {field for field, _ in error.violations} == {f"spec.agent.{name}" for name in names}


async def test_an_empty_request_names_what_is_required(shared: Client) -> None:
    error = await refused(shared.stub.StartExecution(pb.StartExecutionRequest()))
    assert isinstance(error, Invalid)
    assert {field for field, _ in error.violations} == {"execution_id", "spec"}
    empty = pb.StartExecutionRequest(execution_id="a", spec=pb.ExecutionSpec())
    error = await refused(shared.stub.StartExecution(empty))
    assert {field for field, _ in error.violations} == {"spec.purpose", "spec.layout", "spec.agent.command.line"}


async def test_the_same_start_twice_is_one_execution(shared: Client) -> None:
    name = new_id("twice")
    first, again = await asyncio.gather(*(shared.start(name, "echo x >> twice") for _ in range(2)))
    assert first.create_time == again.create_time
    end = await shared.end(name)
    assert await shared.start(name, "echo x >> twice") == end
    assert (shared.service.workspace / "twice").read_text() == "x\n"
    error = await refused(shared.start(name, "echo y"))
    assert isinstance(error, AlreadyExists)
    assert error.reason == "REQUEST_ID_REUSED"


async def test_what_is_not_there_is_not_found(shared: Client) -> None:
    stub = shared.stub
    for call in (
        stub.GetExecution(pb.GetExecutionRequest(execution_id="none")),
        stub.WaitExecution(pb.WaitExecutionRequest(execution_id="none")),
        stub.StopExecution(pb.StopExecutionRequest(execution_id="none")),
        stub.WatchEvents(pb.WatchEventsRequest(execution_id="none")).read(),
    ):
        error = await refused(call)
        assert isinstance(error, NotFound)
        assert (error.reason, error.resource_name) == ("EXECUTION_NOT_FOUND", "none")


async def test_positions_past_the_end_are_out_of_range(shared: Client) -> None:
    name = new_id("short")
    last = (await shared.run(name, "echo x")).last_sequence
    seen = await shared.watch(name, first=last + 1)
    assert seen.events == []
    assert seen.end.last_sequence == last
    error = await refused(
        shared.stub.WatchEvents(pb.WatchEventsRequest(execution_id=name, from_sequence=last + 2)).read()
    )
    assert isinstance(error, OutOfRange)
    assert (error.reason, error.first, error.end) == ("EVENTS_OUT_OF_RANGE", 1, last + 1)


async def test_without_following_a_stream_ends_with_what_there_is(shared: Client) -> None:
    name = new_id("long")
    await shared.start(name, "echo ready; sleep 60")
    await shared.watch(name, until=b"ready")
    messages = [one async for one in shared.stub.WatchEvents(pb.WatchEventsRequest(execution_id=name))]
    assert b"".join(event.output.data for one in messages for event in one.events) == b"ready\n"
    assert not any(one.HasField("end") for one in messages)
    waited = await shared.stub.WaitExecution(pb.WaitExecutionRequest(execution_id=name), timeout=0.5)
    assert waited.execution.state == State.STATE_RUNNING, "it answers before the call's deadline"
    await shared.stop(name, 0)


async def test_a_wait_for_the_beginning_ends_when_the_program_has_begun(shared: Client) -> None:
    name = new_id("begun")
    await shared.start(name, "sleep 60")
    request = pb.WaitExecutionRequest(execution_id=name, until_started=True)
    begun = (await shared.stub.WaitExecution(request, timeout=20)).execution
    assert begun.state == State.STATE_RUNNING
    assert begun.HasField("start_time")
    await shared.stop(name, 0)
    ended = (await shared.stub.WaitExecution(pb.WaitExecutionRequest(execution_id=name), timeout=20)).execution
    assert ended.start_time == begun.start_time
    assert (await shared.stub.WaitExecution(request, timeout=20)).execution == ended


async def test_no_more_than_allowed_run_at_once(directory: Path) -> None:
    async with running(directory, MAX_EXECUTIONS="2") as client:
        await client.start("one", "sleep 60")
        await client.start("two", "sleep 60")
        error = await refused(client.start("three", "true"))
        assert isinstance(error, Exhausted)
        assert error.reason == "TOO_MANY_EXECUTIONS"
        assert error.retry_after
        assert (await client.start("one", "sleep 60")).state <= State.STATE_RUNNING, "a repetition needs no room"
        await client.stop("one", 0)
        await client.end("one")
        assert (await client.run("three", "true")).state == State.STATE_SUCCEEDED


async def test_lists_are_filtered_and_paged(shared: Client) -> None:
    job, started = new_id("job"), [new_id("run") for _ in range(5)]
    for number, name in enumerate(started):
        await shared.run(name, f"exit {number % 2}", job_id=job)
    request = pb.ListExecutionsRequest(job_id=job, states=[State.STATE_SUCCEEDED], page_size=2)
    names = []
    while True:
        page = await shared.stub.ListExecutions(request)
        names += [execution.execution_id for execution in page.executions]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert names == [started[4], started[2], started[0]]
    error = await refused(shared.stub.ListExecutions(pb.ListExecutionsRequest(page_token="x", page_size=-1)))
    assert isinstance(error, Invalid)
    assert {field for field, _ in error.violations} == {"page_size"}


async def test_a_lower_fence_changes_nothing(shared: Client) -> None:
    job, name = new_id("job"), new_id("fenced")
    start = pb.StartExecutionRequest(execution_id=name, spec=shared.service.spec("sleep 60", job_id=job))
    await shared.stub.StartExecution(start, metadata=fence_metadata(Fence(job, 7)))
    late = fence_metadata(Fence(job, 6))
    for call in (
        shared.stub.StartExecution(start, metadata=late),
        shared.stub.StopExecution(pb.StopExecutionRequest(execution_id=name), metadata=late),
    ):
        error = await refused(call)
        assert isinstance(error, FailedPrecondition)
        assert error.reason == "STALE_FENCE"
    assert (await shared.get(name)).state <= State.STATE_RUNNING
    await shared.stop(name, 0)


async def test_a_machine_that_is_short_of_something_says_so(directory: Path) -> None:
    async with running(directory, MEMORY_RESERVE_BYTES=str(1 << 60)) as client:
        error = await refused(client.start("run", "true"))
        assert isinstance(error, Exhausted)
        assert (error.reason, error.metadata["resource"]) == ("NODE_BUSY", "memory")
        assert error.retry_after
        assert not client.service.run_directory("run").exists()


@pytest.mark.slow
async def test_many_at_once_are_served_or_refused(directory: Path) -> None:
    async with running(directory, MAX_EXECUTIONS="40") as client:
        names = [f"run-{number}" for number in range(70)]
        answers = await asyncio.gather(*(client.start(name, "sleep 1") for name in names), return_exceptions=True)
        errors = [service_error(answer) for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
        assert {error.reason for error in errors} <= {"TOO_MANY_EXECUTIONS"}
        assert all(error.retry_after for error in errors)
        taken = [name for name, answer in zip(names, answers, strict=True) if not isinstance(answer, BaseException)]
        assert len(taken) + len(errors) == len(names)
        assert len(taken) >= 40
        ends = await asyncio.gather(*(client.end(name) for name in taken))
        assert {(end.state, end.processes_left) for end in ends} == {(State.STATE_SUCCEEDED, 0)}
