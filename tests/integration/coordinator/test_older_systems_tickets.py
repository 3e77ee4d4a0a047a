"""What clients of the ticket system find: items by state, log lines with their parts, their word as theirs."""

import json
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

from boatyard.execution.v1 import event_pb2
from boatyard.gateway.v1 import catalog_pb2
from boatyard.gateway.v1 import coordinator_pb2 as pb

from services.cli import shapes
from services.gateway.catalog.store import WORK_ITEMS, CatalogStore
from services.gateway.ledger.events import EventStore
from services.gateway.runtime.event_sources import ReceivedEvents
from services.gateway.values.catalog import WorkItem, WorkItemState
from tests.integration.coordinator.test_simple_clients import Api, api, book  # noqa: F401 - fixtures
from tests.kit.ledger import Books

NOW = datetime.now(UTC)


async def claimed(api: Api) -> dict[str, object]:  # noqa: F811
    job = (await api.coordinator.ClaimJob(pb.ClaimJobRequest(coordinator_id="simple"))).job
    return {"coordinator_id": "simple", "lease": job.lease}


async def test_the_work_context_has_the_projects_items_by_state(book: Books, api: Api) -> None:  # noqa: F811
    catalog = CatalogStore(book.engine)
    states = [*WorkItemState, WorkItemState.TODO]
    for number, state in enumerate(states):
        item = WorkItem(
            work_item_id=f"item-{number}",
            title=f"Number {number}",
            description="x" * 1000,
            project_id="default",
            state=state,
            create_time=NOW + timedelta(seconds=number),
        )
        await catalog.create(WORK_ITEMS, item)
    await book.admit(work_item_id="item-0")
    context = await api.coordinator.GetWorkContext(pb.GetWorkContextRequest(**await claimed(api)))
    assert context.work_item.state == catalog_pb2.WorkItem.STATE_IN_PROGRESS
    told = [[each.work_item_id for each in items] for items in (context.backlog, context.in_review, context.done)]
    assert told == [["item-4"], ["item-2"], ["item-3"]]
    assert [(each.work_item_id, each.title) for each in context.in_progress] == [
        ("item-1", "Number 1"),
        ("item-0", "Number 0"),
    ], "newest first"


async def test_a_log_line_keeps_its_session_step_summary_and_output(book: Books, api: Api) -> None:  # noqa: F811
    await book.admit()
    job = (await api.coordinator.ClaimJob(pb.ClaimJobRequest(coordinator_id="simple"))).job
    note = event_pb2.Note(session_id="session-7", step="plan", text="It looked around.", output=b"\xffall of it")
    event = event_pb2.Event(sequence=1, note=note)
    event.time.GetCurrentTime()
    log = pb.AppendEventsRequest(
        coordinator_id="simple", lease=job.lease, execution_id=job.execution_id, events=[event], is_last=True
    )
    call = api.coordinator.AppendEvents(iter([log]))
    assert (await call).next_sequence == 2
    received = ReceivedEvents(book.store, EventStore(book.engine), book.notifier)
    async with aclosing(received.events(job.execution_id, 1, follow=False, kinds=())) as batches:
        (kept,) = [event async for batch in batches for event in batch.events]
    assert kept.note == note
    shown = shapes.event(kept)
    assert (shown["session_id"], shown["step"], shown["text"]) == ("session-7", "plan", "It looked around.")
    assert json.dumps(shown), "what is not UTF-8 can be shown"


async def test_what_a_client_reports_is_marked_as_its_word(book: Books, api: Api) -> None:  # noqa: F811
    await book.admit()
    done = pb.CompleteJobRequest(**await claimed(api), summary="Mended.", branch="mended", commit_id="ab" * 20)
    output = (await api.coordinator.CompleteJob(done)).job.output
    assert (output.pushed, output.branch, output.reported) == (True, "mended", True)
    await book.admit()
    failed = pb.FailJobRequest(**await claimed(api), reason="AGENT_FAILED", summary="As far as I came.")
    assert (await api.coordinator.FailJob(failed)).job.output.reported
