"""What an agent asks before its requests to models, answered by the driver from its books, whoever the driver is."""

import asyncio
from dataclasses import replace

import grpc
import pytest
from boatyard.execution.v1 import execution_pb2 as pb
from boatyard.execution.v1.execution_pb2_grpc import ExecutionServiceServicer, add_ExecutionServiceServicer_to_server

from services.agent.asks import GRANTED, Reservation, ReservationAnswer
from services.agent.providers import EVERYWHERE, ModelProvider, ModelWire
from services.lifecycle.books import AskEnd
from services.lifecycle.driver import Driver
from services.lifecycle.ledger import Lease, LedgerUnavailable
from services.lifecycle.nodes import Nodes
from tests.integration.gateway.test_driver import admit, driving, ended
from tests.kit.ledger import Books
from tests.kit.model_provider import ProviderServer, messages, providing

BODY = '{"model": "claude-sonnet-5-5", "max_tokens": 100, "messages": []}'
CALL = (
    "curl -sS --max-time 60 -o /dev/null -w '<%{http_code}>' -H x-api-key:$ANTHROPIC_API_KEY"
    f" -d '{BODY}' $ANTHROPIC_BASE_URL/v1/messages"
)
THRICE = f"for i in 1 2 3; do {CALL}; done"


class KeptBooks:
    """Grants a number of requests, or sets them aside for good; each call fails once before it is done."""

    def __init__(self, most: int = 1000) -> None:
        self.most = most
        self.reserved: dict[str, tuple[Reservation, ReservationAnswer]] = {}
        self.settled: dict[str, AskEnd] = {}
        self.failed: set[str] = set()
        self.is_away = False

    async def reserves(self, lease: Lease) -> bool:
        self._fail("reserves")
        return True

    async def reserve(
        self, lease: Lease, execution_id: str, ask_id: str, reservation: Reservation
    ) -> ReservationAnswer:
        assert execution_id == lease.execution_id
        self._fail(ask_id)
        answer = ReservationAnswer(is_granted=False, reason="BUDGET_EXCEEDED", message="nothing is left")
        granted = sum(answer.is_granted for _, answer in self.reserved.values())
        self.reserved.setdefault(ask_id, (reservation, GRANTED if granted < self.most else answer))
        return self.reserved[ask_id][1]

    async def settle(self, lease: Lease, execution_id: str, end: AskEnd) -> None:
        self._fail(f"{end.ask_id} is over")
        assert self.settled.setdefault(end.ask_id, end) == end

    def _fail(self, what: str) -> None:
        if self.is_away or what not in self.failed:
            self.failed.add(what)
            raise LedgerUnavailable(what)


def provider(at: ProviderServer) -> ModelProvider:
    return ModelProvider(
        name="ours", wire=ModelWire.MESSAGES, base_url=at.url, keys=("sk-ours",), allowed_addresses=EVERYWHERE
    )


async def driver(book: Books, nodes: Nodes, at: ProviderServer, books: KeptBooks) -> Driver:
    cell = await book.cell("cell")
    return Driver(cell, nodes, capacity=1, poll_seconds=0.02, own_providers=[provider(at)], books=books)


class EarlierService(ExecutionServiceServicer):
    """An execution service of a version that knew of no reservations."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def DescribeNode(  # noqa: N802 - the contract's name
        self, request: pb.DescribeNodeRequest, context: grpc.aio.ServicerContext
    ) -> pb.DescribeNodeResponse:
        self.calls.append("DescribeNode")
        return pb.DescribeNodeResponse()

    async def StartExecution(  # noqa: N802 - likewise
        self, request: pb.StartExecutionRequest, context: grpc.aio.ServicerContext
    ) -> pb.StartExecutionResponse:
        self.calls.append("StartExecution")
        return pb.StartExecutionResponse()


async def test_a_machine_that_asks_nobody_gets_no_agent_that_a_budget_binds(book: Books, nodes: Nodes) -> None:
    server, earlier = grpc.aio.server(), EarlierService()
    add_ExecutionServiceServicer_to_server(earlier, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with providing(messages()) as at, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            job_id = await admit(book, CALL, max_attempts=1)
            async with driving(await driver(book, replace(nodes, execution=channel), at, KeptBooks())):
                job = await ended(book, job_id)
    finally:
        await server.stop(0)
    assert (job.reason, "earlier version" in job.message) == ("NODE_VERSION", True), job.message
    assert "StartExecution" not in earlier.calls


@pytest.mark.slow
async def test_each_request_is_reserved_once_and_settled_by_what_it_used(book: Books, nodes: Nodes) -> None:
    kept = KeptBooks()
    async with providing(messages()) as at:
        job_id = await admit(book, THRICE)
        async with driving(await driver(book, nodes, at, kept)):
            job = await ended(book, job_id)
    assert job.executions[0].output.log_tail == b"<200><200><200>", job
    assert len(at.asked) == len(kept.reserved) == 3
    assert kept.settled.keys() == kept.reserved.keys()
    for reservation, _ in kept.reserved.values():
        assert (reservation.provider, reservation.model, reservation.max_output_tokens) == (
            "ours",
            "claude-sonnet-5-5",
            100,
        )
    for end in kept.settled.values():
        assert end.use is not None
        assert (end.use.input_tokens, end.use.output_tokens, end.use.cache_read_tokens) == (11, 42, 300)
        assert end.use.cost_usd
        assert not end.is_use_unknown


@pytest.mark.slow
async def test_while_the_books_are_away_a_request_waits_and_the_next_driver_answers(book: Books, nodes: Nodes) -> None:
    kept = KeptBooks()
    async with providing(messages()) as at:
        job_id = await admit(book, THRICE)
        first = driving(await driver(book, nodes, at, kept))
        async with first:
            async with asyncio.timeout(30):
                while not kept.settled:
                    await asyncio.sleep(0.01)
            kept.is_away = True
            sent = len(at.asked)
            await asyncio.sleep(1)
            assert len(at.asked) <= sent + 1, "what was granted before goes; nothing else does"
        kept.is_away = False
        async with driving(await driver(book, nodes, at, kept)):
            job = await ended(book, job_id)
    assert job.executions[0].output.log_tail == b"<200><200><200>", job
    assert len(at.asked) == len(kept.reserved) == len(kept.settled) == 3
    assert all(end.use for end in kept.settled.values())
