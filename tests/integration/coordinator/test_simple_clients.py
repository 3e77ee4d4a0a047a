"""A client without any driver does a job: the example, and what its words lead to."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from boatyard.gateway.v1 import coordinator_pb2 as pb

from services.common.errors import FailedPrecondition, ServiceError
from services.common.rpc.status import service_error
from services.gateway.catalog.store import REPOSITORIES, WORK_ITEMS, CatalogStore
from services.gateway.ledger.events import EventStore
from services.gateway.runtime.event_sources import ReceivedEvents
from services.gateway.values.catalog import Document, Repository, WorkItem, WorkItemState
from services.gateway.values.checkpoints import CheckpointDecision, Decider
from services.gateway.values.jobs import JobView
from services.lifecycle.model.checkpoint import CheckpointState
from services.lifecycle.model.policy import Checkpoints, Policy
from services.lifecycle.model.states import ExecutionState, JobState
from tests.kit.contract import ROOT
from tests.kit.coordinators import Api, coordinator_api
from tests.kit.ledger import Books, books
from tests.kit.servers import TOKEN

AT_WORK = 'cat > context.json; printf "\\377 at work\\n"; '
DONE = """echo '{"summary": "Mended.", "pull_request_url": "https://a.example/pull/7", "pull_request_number": 7, \
"review_comment": "Look at the hinge."}'"""


@pytest_asyncio.fixture
async def book(tmp_path: Path) -> AsyncIterator[Books]:
    async with books(f"sqlite:///{tmp_path}/test.db") as opened:
        yield opened


@pytest_asyncio.fixture
async def api(book: Books) -> AsyncIterator[Api]:
    async with coordinator_api(book) as served:
        yield served


@contextmanager
def example(api: Api, directory: Path, line: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, str(ROOT / "examples" / "coordinator.py"), api.address, "/bin/sh", "-c", line]
    process = subprocess.Popen(command, cwd=directory, env={**os.environ, "BOATYARD_TOKEN": TOKEN})
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


async def ended(book: Books, job_id: str) -> JobView:
    async with asyncio.timeout(60):
        while not (view := await book.store.job(job_id)).state.is_final:
            await asyncio.sleep(0.05)
    return view


async def refused(call: "grpc.aio.UnaryUnaryCall[object, object]") -> ServiceError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return service_error(error.value)


async def test_the_example_does_a_ticket(book: Books, api: Api, tmp_path: Path) -> None:
    catalog, item = CatalogStore(book.engine), await a_ticket(book)
    view = await book.admit("Mend it.", work_item_id=item.work_item_id)
    with example(api, tmp_path, AT_WORK + DONE):
        job = await ended(book, view.spec.job_id)
    context = (tmp_path / "context.json").read_text()
    for needed in ("The gate squeaks", "since Monday", "oil.md", "a-secret-token", "A hinge", "Mend it."):
        assert needed in context
    assert job.state is JobState.SUCCEEDED
    output = job.executions[-1].output
    assert output.reported, "it is a client's word"
    assert (output.summary, output.pull_request_url, output.pull_request_number, output.review_comment) == (
        "Mended.",
        "https://a.example/pull/7",
        7,
        "Look at the hinge.",
    )
    assert (await catalog.get(WORK_ITEMS, item.work_item_id)).state is WorkItemState.REVIEW
    received = ReceivedEvents(book.store, EventStore(book.engine), book.notifier)
    async with aclosing(received.events(job.executions[-1].execution_id, 1, follow=False, kinds=())) as batches:
        events = [event async for batch in batches for event in batch.events]
    assert events[0].output.data == b"\xff at work\n"


async def a_ticket(book: Books) -> WorkItem:
    catalog, now = CatalogStore(book.engine), datetime.now(UTC)
    common = {"project_id": "default", "create_time": now}
    where = {"repository_id": "gate", "url": "https://a.example/gate.git", "default_revision": b""}
    await catalog.create(REPOSITORIES, Repository(**where, token="a-secret-token", **common))
    related = WorkItem(work_item_id="hinge", title="A hinge", description="", **common)
    await catalog.create(WORK_ITEMS, related)
    item = WorkItem(
        work_item_id="gate-1",
        title="The gate squeaks",
        description="Oil it.",
        notes=("since Monday",),
        related_work_item_ids=("hinge",),
        repository_id="gate",
        documents=(Document(name="oil.md", content="Use oil."),),
        **common,
    )
    return await catalog.create(WORK_ITEMS, item)


async def test_the_example_tells_a_failure(book: Books, api: Api, tmp_path: Path) -> None:
    failing = await book.admit()
    with example(api, tmp_path, AT_WORK + "exit 3"):
        job = await ended(book, failing.spec.job_id)
    assert (job.state, job.reason, job.message) == (JobState.FAILED, "AGENT_FAILED", "the command ended with 3")


async def test_a_client_may_say_its_end_twice_and_no_other(book: Books, api: Api) -> None:
    await book.admit()
    job = (await api.coordinator.ClaimJob(pb.ClaimJobRequest(coordinator_id="simple"))).job
    mine = {"coordinator_id": "simple", "lease": job.lease}
    early = await refused(api.coordinator.FailJob(pb.FailJobRequest(**mine, reason="CANCELLED")))
    assert isinstance(early, FailedPrecondition)
    assert early.reason == "CANCEL_NOT_REQUESTED"
    bad = pb.CompleteJobRequest(**mine, pull_request_url="https://key@x/1", commit_id="abc", pull_request_number=-1)
    assert len((await refused(api.coordinator.CompleteJob(bad))).violations) == 3  # type: ignore[attr-defined]
    await book.store.cancel_job(job.lease.job_id)
    cancelled = pb.FailJobRequest(**mine, reason="CANCELLED", summary="As far as I came.")
    for _ in range(2):
        answer = await api.coordinator.FailJob(cancelled)
        assert answer.job.state == answer.job.STATE_CANCELLED
    assert answer.job.output.summary == "As far as I came."
    late = await refused(api.coordinator.CompleteJob(pb.CompleteJobRequest(**mine, summary="Mended after all.")))
    assert late.reason == "LEASE_LOST"
    (run,) = (await book.store.job(job.lease.job_id)).executions
    assert run.state is ExecutionState.CANCELLED


async def test_a_failure_of_the_machine_is_tried_again(book: Books, api: Api) -> None:
    await book.admit()
    job = (await api.coordinator.ClaimJob(pb.ClaimJobRequest(coordinator_id="simple"))).job
    failure = pb.FailJobRequest(coordinator_id="simple", lease=job.lease, reason="CLONE_FAILED", message="no route")
    for _ in range(2):
        answer = await api.coordinator.FailJob(failure)
        assert answer.job.state == answer.job.STATE_PENDING
    first, second = (await book.store.job(job.lease.job_id)).executions
    assert (first.state, first.reason, second.state) == (ExecutionState.FAILED, "CLONE_FAILED", ExecutionState.PENDING)


async def held_job(book: Books, api: Api) -> dict[str, object]:
    """Admit a job that a person must approve before it is pushed, and have a client claim it."""
    await book.admit(policy=Policy(checkpoints=Checkpoints(("push",))))
    job = (await api.coordinator.ClaimJob(pb.ClaimJobRequest(coordinator_id="simple"))).job
    return {"coordinator_id": "simple", "lease": job.lease}


async def test_a_client_is_not_believed_what_nobody_has_approved(book: Books, api: Api) -> None:
    done = pb.CompleteJobRequest(**await held_job(book, api), summary="Mended.", branch="mended")
    for _ in range(2):
        waits = await refused(api.coordinator.CompleteJob(done))
        assert (waits.reason, waits.metadata["state"]) == ("APPROVAL_REQUIRED", "PENDING")
    (asked,) = (await book.store.job(done.lease.job_id)).checkpoints
    assert waits.metadata["checkpoint_id"] == asked.checkpoint_id
    assert (asked.name, asked.output.summary) == ("end", "Mended."), "the answer is given to what is seen"
    renewed = await api.coordinator.RenewLease(pb.RenewLeaseRequest(coordinator_id="simple", leases=[done.lease]))
    assert list(renewed.held_job_ids) == [done.lease.job_id]
    yes = CheckpointDecision(state=CheckpointState.APPROVED, comment="", decider=Decider(name="ann"))
    await book.checkpoints.decide(asked.checkpoint_id, yes)
    answer = await api.coordinator.CompleteJob(done)
    assert answer.job.state == answer.job.STATE_SUCCEEDED


async def test_what_is_rejected_cannot_be_completed(book: Books, api: Api) -> None:
    mine = await held_job(book, api)
    done = pb.CompleteJobRequest(**mine, summary="Mended.")
    asked = (await refused(api.coordinator.CompleteJob(done))).metadata["checkpoint_id"]
    no = CheckpointDecision(state=CheckpointState.REJECTED, comment="no", decider=Decider(name="ann"))
    await book.checkpoints.decide(asked, no)
    assert (await refused(api.coordinator.CompleteJob(done))).metadata["state"] == "REJECTED"
    answer = await api.coordinator.FailJob(pb.FailJobRequest(**mine, reason="REJECTED", message="no"))
    assert (answer.job.state, answer.job.reason) == (answer.job.STATE_FAILED, "REJECTED")


async def test_a_job_that_has_ended_asks_nobody(book: Books, api: Api) -> None:
    mine = await held_job(book, api)
    await api.coordinator.FailJob(pb.FailJobRequest(**mine, reason="AGENT_FAILED"))
    assert (await refused(api.coordinator.CompleteJob(pb.CompleteJobRequest(**mine)))).reason == "LEASE_LOST"
    assert (await book.store.job(mine["lease"].job_id)).checkpoints == ()  # type: ignore[attr-defined]
