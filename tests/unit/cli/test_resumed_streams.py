"""Following over a connection that breaks: a real gRPC server that plays a gateway, badly."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest
from boatyard.execution.v1 import event_pb2
from boatyard.gateway.v1 import job_pb2, runtime_pb2
from boatyard.gateway.v1.job_pb2_grpc import JobServiceServicer, add_JobServiceServicer_to_server
from boatyard.gateway.v1.runtime_pb2_grpc import AgentRuntimeServiceServicer, add_AgentRuntimeServiceServicer_to_server

from services.cli.clients import Gateway
from services.cli.follower import Follower
from services.cli.resumed_streams import Outage, events_of_attempts, execution_events, job_changes
from services.cli.screen import Screen
from services.common.errors import Invalid, NotFound, Unavailable
from services.common.rpc.channel import open_channel
from services.common.rpc.server import Registration
from tests.kit.servers import TOKEN, serving


def output(sequence: int) -> event_pb2.Event:
    data = f"line {sequence}\n".encode()
    return event_pb2.Event(
        sequence=sequence, output=event_pb2.OutputChunk(stream=event_pb2.OutputChunk.STREAM_STDOUT, data=data)
    )


class BreakingGateway(AgentRuntimeServiceServicer, JobServiceServicer):
    """Has ten events, tells at most four of them a call, one of them twice, and then breaks."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    async def WatchExecution(self, request, context):  # noqa: N802 - the contract's name
        if request.execution_id != "exec-1":
            self.calls.append(request.from_sequence)
            if request.execution_id == "exec-away":
                raise Unavailable("CELL_UNAVAILABLE", "cell cell-1 does not answer now")
            raise NotFound("execution", request.execution_id)
        self.calls.append(request.from_sequence)
        yield runtime_pb2.WatchExecutionResponse()  # a heartbeat
        if len(self.calls) == 1:
            raise _broken()  # before anything was told
        # One too early, as a gateway may send that cuts batches otherwise than it is asked.
        first = max(request.from_sequence - 1, 1)
        last = min(first + 3, 10)
        for sequence in range(first, last + 1):
            yield runtime_pb2.WatchExecutionResponse(events=[output(sequence)])
        if last < 10:
            raise _broken()
        yield runtime_pb2.WatchExecutionResponse(end=runtime_pb2.Execution())

    async def WatchJob(self, request, context):  # noqa: N802 - the contract's name
        state = job_pb2.Job.STATE_RUNNING
        for number in (3, 4):
            self.calls.append(number)
            yield job_pb2.WatchJobResponse(job=self.job(state, number))
        if len(self.calls) < 5:
            raise _broken()
        yield job_pb2.WatchJobResponse(job=self.job(job_pb2.Job.STATE_SUCCEEDED, 5))

    def job(self, state: int, number: int) -> job_pb2.Job:
        done = job_pb2.StageRecord.STATE_DONE
        timeline = [job_pb2.StageRecord(name=name, state=done) for name in ("base", "agent", "push")]
        return job_pb2.Job(
            job_id="job-1", state=state, revision_number=number, execution_ids=["exec-1"], timeline=timeline
        )


def _broken() -> Unavailable:
    return Unavailable("DRAINING", "the service is stopping: ask again")


@pytest.fixture
def breaking() -> BreakingGateway:
    return BreakingGateway()


@asynccontextmanager
async def reaching(servicer: BreakingGateway) -> AsyncIterator[Gateway]:
    registrations = (
        Registration("runtime", add_AgentRuntimeServiceServicer_to_server, servicer),
        Registration("jobs", add_JobServiceServicer_to_server, servicer),
    )
    async with serving(*registrations) as server, open_channel(server.address, TOKEN) as channel:
        yield Gateway(channel, server.address)


async def test_events_come_once_each_over_a_connection_that_breaks(breaking: BreakingGateway) -> None:
    said: list[str] = []
    async with (
        reaching(breaking) as gateway,
        aclosing(execution_events(gateway, "exec-1", Outage(said.append))) as batches,
    ):
        sequences = [event.sequence async for batch in batches for event in batch]

    assert sequences == list(range(1, 11))
    assert breaking.calls == [1, 1, 5, 8]
    assert said == ["connection lost; reconnecting for up to 60 s", "reconnected"] * 3


async def test_each_change_of_a_job_is_seen_once(breaking: BreakingGateway) -> None:
    async with reaching(breaking) as gateway, aclosing(job_changes(gateway, "job-1", Outage(print))) as changes:
        numbers = [job.revision_number async for job in changes]

    assert numbers == [3, 4, 5]


async def test_what_will_not_pass_is_not_waited_for(breaking: BreakingGateway) -> None:
    async with reaching(breaking) as gateway:
        with pytest.raises(NotFound):
            await anext(execution_events(gateway, "exec-2", Outage(print)))


async def test_who_only_reads_does_not_wait_for_a_cell_that_is_away(breaking: BreakingGateway) -> None:
    async with reaching(breaking) as gateway:
        with pytest.raises(Unavailable) as raised:
            await anext(execution_events(gateway, "exec-away", Outage(print), follow=False))
        assert raised.value.reason == "CELL_UNAVAILABLE"
        with pytest.raises(Unavailable):
            await anext(execution_events(gateway, "exec-away", Outage(print, patience_s=0.3)))
    assert len(breaking.calls) > 2, "who follows waits"


async def test_patience_has_an_end() -> None:
    said: list[str] = []
    async with open_channel("127.0.0.1:1", TOKEN) as channel:
        watching = execution_events(Gateway(channel, "127.0.0.1:1"), "exec-1", Outage(said.append, patience_s=0.3))
        with pytest.raises(Unavailable) as raised:
            await anext(watching)

    assert raised.value.message == "no gateway answers at 127.0.0.1:1: is `boatyard up` running?"
    assert said == ["connection lost; reconnecting for up to 0.3 s"]


async def test_what_comes_after_the_agent_is_told_after_all_it_wrote(
    breaking: BreakingGateway, capfd: pytest.CaptureFixture[str]
) -> None:
    async with reaching(breaking) as gateway:
        job = await Follower(gateway, Screen(), as_json=True).to_end("job-1")
    lines = capfd.readouterr().out.splitlines()

    assert job.state == job_pb2.Job.STATE_SUCCEEDED
    told = [line for line in lines if '"kind": "output"' in line]
    assert len(told) == 10
    push = next(number for number, line in enumerate(lines) if '"name": "push"' in line)
    assert push > lines.index(told[-1])


class LosingGateway(BreakingGateway):
    """Loses the cell of a job's first attempt; the second one is on another, and the third comes of a retry."""

    async def WatchExecution(self, request, context):  # noqa: N802 - the contract's name
        number = int(request.execution_id.removeprefix("exec-"))
        yield runtime_pb2.WatchExecutionResponse(events=[output(number)])
        yield runtime_pb2.WatchExecutionResponse(end=runtime_pb2.Execution(reason="NODE_LOST" if number == 1 else ""))

    async def WatchJob(self, request, context):  # noqa: N802 - the contract's name
        begun = ["exec-1", "exec-2", "exec-3"]
        for number in range(1, 4):
            yield job_pb2.WatchJobResponse(job=self.of(job_pb2.Job.STATE_RUNNING, number, begun[:number]))
        yield job_pb2.WatchJobResponse(job=self.of(job_pb2.Job.STATE_AWAITING_APPROVAL, 4, begun))

    def of(self, state: int, number: int, execution_ids: list[str]) -> job_pb2.Job:
        return job_pb2.Job(job_id="job-1", state=state, revision_number=number, execution_ids=execution_ids)


async def test_who_follows_a_job_sees_the_attempts_after_a_lost_one() -> None:
    said: list[str] = []
    async with reaching(LosingGateway()) as gateway:
        events = events_of_attempts(gateway, "job-1", "exec-1", Outage(said.append))
        async with aclosing(events) as batches:
            seen = [event.sequence async for batch in batches for event in batch]

    assert seen == [1, 2, 3]
    assert said == ["exec-1 was lost with its cell (NODE_LOST)"]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (job_pb2.JobSpec(prompt="a" * (5 << 20)), "spec.prompt"),
        (job_pb2.JobSpec(prompt="a", labels={"a": "b" * (5 << 20)}), "spec.labels"),
        (job_pb2.JobSpec(prompt="a" * 5000, files=[job_pb2.InputFile(content=bytes(1 << 20))] * 5), "spec.files"),
        (job_pb2.JobSpec(agent={"environment": {"A": "b" * (5 << 20)}}), "spec.agent.environment"),
        (job_pb2.JobSpec(agent={"system_prompt": "\u00fc" * (3 << 20)}), "spec.agent.system_prompt"),
        (job_pb2.JobSpec(agent={"command": {"line": "a" * (5 << 20)}}), "spec.agent.command.line"),
        (job_pb2.JobSpec(data=bytes(5 << 20)), "spec.data"),
        (job_pb2.JobSpec(policy={"verify_command": "a" * (5 << 20)}), "spec.policy.verify_command"),
        (job_pb2.JobSpec(repository_id="a" * (5 << 20)), "spec.repository_id"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_request_that_no_server_takes_is_not_sent_and_its_largest_field_is_named(
    spec: job_pb2.JobSpec, field: str
) -> None:
    async with open_channel("127.0.0.1:1", TOKEN) as channel:
        with pytest.raises(Invalid) as raised:
            await Gateway(channel, "127.0.0.1:1").jobs.CreateJob(job_pb2.CreateJobRequest(request_id="r", spec=spec))

    assert raised.value.violations[0][0] == field
