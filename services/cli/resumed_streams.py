"""Streams that survive a lost connection: they resume where they were when the gateway comes back."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, TypeAlias, TypeVar

import grpc
from boatyard.execution.v1 import event_pb2
from boatyard.gateway.v1 import checkpoint_pb2, job_pb2, runtime_pb2

from services.cli.clients import Gateway
from services.common.errors import ServiceError, Status
from services.common.rpc.streaming import streaming

T = TypeVar("T")

PATIENCE_S = 60.0
"""How long a gateway may be away."""

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
_REMEMBERED = 10_000
_PASSING = {Status.UNAVAILABLE, Status.CANCELLED}
"""The statuses of calls during a gateway's restart."""
_TOO_MANY_CALLS = "TOO_MANY_CALLS"
"""The gateway, or a node behind it, has no room for another stream now."""
_CELL_UNAVAILABLE = "CELL_UNAVAILABLE"
"""Another cell does not answer: who follows waits for it, and who only reads what is there is told at once."""

_NODE_LOST = "NODE_LOST"

ENDED = (job_pb2.Job.STATE_SUCCEEDED, job_pb2.Job.STATE_FAILED, job_pb2.Job.STATE_CANCELLED)

Say = Callable[[str], None]
Kinds = Sequence["event_pb2.EventKind.ValueType"]
Stream: TypeAlias = grpc.aio.UnaryStreamCall[Any, T]


class Outage:
    """Prints once that a gateway is away, and once that it is back, however many streams notice."""

    def __init__(self, say: Say, patience_s: float = PATIENCE_S) -> None:
        self.patience_s = patience_s
        self._say = say
        self._broken: set[object] = set()

    def broke(self, stream: object) -> None:
        """Record that a stream broke."""
        if not self._broken:
            self._say(f"connection lost; reconnecting for up to {self.patience_s:g} s")
        self._broken.add(stream)

    def mended(self, stream: object) -> None:
        """Record that a stream has resumed."""
        if stream in self._broken:
            self._broken.remove(stream)
            if not self._broken:
                self._say("reconnected")

    def lost(self, execution_id: str) -> None:
        """Say that an execution has no more events, because the machine that has them does not come back."""
        self._say(f"{execution_id} was lost with its cell ({_NODE_LOST})")


async def job_changes(gateway: Gateway, job_id: str, outage: Outage) -> AsyncGenerator[job_pb2.Job, None]:
    """Yield a job as it is, and after each change, until it has ended."""

    def connect() -> Stream[job_pb2.WatchJobResponse]:
        return gateway.jobs.WatchJob(job_pb2.WatchJobRequest(job_id=job_id))

    seen = -1
    async with aclosing(_lasting(gateway, connect, outage)) as answers:
        async for answer in answers:
            # Every connection starts with the current job, which we may know already.
            if answer.HasField("job") and answer.job.revision_number > seen:
                seen = answer.job.revision_number
                yield answer.job
            if answer.job.state in ENDED:
                return


async def all_job_changes(
    gateway: Gateway, job_filter: job_pb2.JobFilter, outage: Outage
) -> AsyncGenerator[job_pb2.Job, None]:
    """Yield all jobs that match, and again those that change, until closed."""
    position = 0

    def connect() -> Stream[job_pb2.WatchJobsResponse]:
        return gateway.jobs.WatchJobs(job_pb2.WatchJobsRequest(filter=job_filter, from_position=position))

    seen: dict[str, int] = {}
    async with aclosing(_lasting(gateway, connect, outage)) as answers:
        async for answer in answers:
            position = answer.next_position
            job = answer.job
            # After a reconnection known jobs are sent again.
            if answer.HasField("job") and job.revision_number > seen.pop(job.job_id, 0):
                yield job
            if answer.HasField("job"):
                seen[job.job_id] = job.revision_number
                if len(seen) > _REMEMBERED:
                    del seen[next(iter(seen))]


async def open_checkpoints(
    gateway: Gateway, request: checkpoint_pb2.WatchCheckpointsRequest, outage: Outage
) -> AsyncGenerator[checkpoint_pb2.Checkpoint, None]:
    """Yield the checkpoints that wait, each new one, and each again that waits no longer, until closed."""

    def connect() -> Stream[checkpoint_pb2.WatchCheckpointsResponse]:
        return gateway.checkpoints.WatchCheckpoints(request)

    seen: dict[str, checkpoint_pb2.Checkpoint.State.ValueType] = {}
    async with aclosing(_lasting(gateway, connect, outage)) as answers:
        async for answer in answers:
            checkpoint = answer.checkpoint
            # After a reconnection those that wait are sent again.
            if answer.HasField("checkpoint") and seen.get(checkpoint.checkpoint_id) != checkpoint.state:
                yield checkpoint
                seen[checkpoint.checkpoint_id] = checkpoint.state
                if len(seen) > _REMEMBERED:
                    del seen[next(iter(seen))]


async def execution_events(
    gateway: Gateway, execution_id: str, outage: Outage, *, first: int = 1, follow: bool = True, kinds: Kinds = ()
) -> AsyncGenerator[list[event_pb2.Event], None]:
    """Yield an execution's events in batches, each event once, from sequence `first`, of some kinds or all.

    With `follow` until the execution has ended, else as many as there are. An empty batch is a heartbeat.
    """
    position = max(first, 1)

    def connect() -> Stream[runtime_pb2.WatchExecutionResponse]:
        request = runtime_pb2.WatchExecutionRequest(
            execution_id=execution_id, from_sequence=position, follow=follow, kinds=kinds
        )
        return gateway.runtime.WatchExecution(request)

    async with aclosing(_lasting(gateway, connect, outage, until_end=follow)) as answers:
        async for answer in answers:
            batch = [event for event in answer.events if event.sequence >= position]
            position = max([position, answer.next_sequence, *(event.sequence + 1 for event in batch[-1:])])
            yield batch
            if answer.HasField("end"):
                if answer.end.reason == _NODE_LOST:
                    outage.lost(execution_id)
                return


async def events_of_attempts(
    gateway: Gateway, job_id: str, execution_id: str, outage: Outage, *, first: int = 1, kinds: Kinds = ()
) -> AsyncGenerator[list[event_pb2.Event], None]:
    """Yield the events of a job's attempt, from sequence `first`, and then all of each attempt that follows it.

    Ends when the job has ended, or asks a person.
    """
    following: str | None = execution_id
    while following is not None:
        async with aclosing(execution_events(gateway, following, outage, first=first, kinds=kinds)) as batches:
            async for batch in batches:
                yield batch
        following, first = await _attempt_after(gateway, job_id, following, outage), 1


async def _attempt_after(gateway: Gateway, job_id: str, execution_id: str, outage: Outage) -> str | None:
    """Wait for the next attempt and return its id; None when there is none before the job's end or next question."""
    async with aclosing(job_changes(gateway, job_id, outage)) as changes:
        async for job in changes:
            attempts = list(job.execution_ids)
            later = attempts[attempts.index(execution_id) + 1 :] if execution_id in attempts else []
            if later:
                return later[0]
            if job.state == job_pb2.Job.STATE_AWAITING_APPROVAL:
                break
    return None


async def _lasting(
    gateway: Gateway, connect: Callable[[], Stream[T]], outage: Outage, *, until_end: bool = True
) -> AsyncGenerator[T, None]:
    """Yield a stream's messages, and reconnect while it breaks for a temporary reason.

    With `until_end` a stream that ends by itself is reconnected too: its reader stops at the message of the end.
    """
    loop = asyncio.get_running_loop()
    give_up, pause = None, _FIRST_PAUSE_S
    while True:
        problem: ServiceError | None = None
        try:
            async with streaming(connect()) as answers:
                async for answer in answers:
                    outage.mended(connect)
                    give_up, pause = None, _FIRST_PAUSE_S
                    yield answer
            if not until_end:
                return
        except grpc.aio.AioRpcError as error:
            problem = gateway.problem(error)
            is_passing = problem.status in _PASSING or problem.reason == _TOO_MANY_CALLS
            if not is_passing or (problem.reason == _CELL_UNAVAILABLE and not until_end):
                raise problem from None
        outage.broke(connect)
        if give_up is None:
            give_up = loop.time() + outage.patience_s
        elif loop.time() > give_up:
            if problem is not None:
                raise problem
            return
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_S)
