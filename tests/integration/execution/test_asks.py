"""Requests to models that wait until whoever started the execution says that they may go, over every kill."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from boatyard.agent.v1 import ask_pb2, sandbox_pb2
from boatyard.execution.v1 import event_pb2
from boatyard.execution.v1 import execution_pb2 as pb

from services.common.errors import FailedPrecondition, NotFound
from services.common.ids import new_id
from services.common.rpc.times import timestamp_to_proto
from services.execution.door.notice import LAST
from tests.integration.execution.model import of
from tests.integration.execution.service import Client, Seen, State, running
from tests.integration.execution.test_contract import refused
from tests.integration.execution.test_door import door_of, provider
from tests.integration.execution.test_survival import runner_of
from tests.kit.model_provider import ProviderServer, Reply, messages, providing

BODY = '{"model": "claude-sonnet-5-5", "max_tokens": 100, "messages": []}'
CALL = (
    "curl -sS --max-time 60 -w '<%{http_code}>' -H x-api-key:$ANTHROPIC_API_KEY"
    f" -d '{BODY}' $ANTHROPIC_BASE_URL/v1/messages"
)
GRANTED = ask_pb2.ReservationAnswer(is_granted=True)
REFUSED = ask_pb2.ReservationAnswer(reason="BUDGET_EXCEEDED", message="nothing is left of it")


@pytest_asyncio.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    async with running(tmp_path_factory.mktemp("asks")) as client:
        yield client


class Asking:
    """An execution whose requests are to be granted."""

    def __init__(self, client: Client, execution_id: str) -> None:
        self.client = client
        self.execution_id = execution_id

    async def asked(self, count: int = 1) -> list[ask_pb2.Ask]:
        """Wait for that many asks, and return all of them."""
        found: list[ask_pb2.Ask] = []
        kinds = [event_pb2.EVENT_KIND_ASK]
        request = pb.WatchEventsRequest(execution_id=self.execution_id, follow=True, kinds=kinds)
        call = self.client.stub.WatchEvents(request, wait_for_ready=True, timeout=60)
        async for message in call:
            found += [event.ask for event in message.events]
            if len(found) >= count:
                call.cancel()
                return found
        raise AssertionError(found)

    async def answer(self, ask_id: str, answer: ask_pb2.ReservationAnswer = GRANTED) -> ask_pb2.ReservationAnswer:
        request = pb.AnswerRequest(
            execution_id=self.execution_id, ask_id=ask_id, answer=ask_pb2.Answer(reservation=answer)
        )
        return (await self.client.stub.Answer(request, wait_for_ready=True, timeout=60)).answer.reservation

    async def end(self) -> Seen:
        seen = await self.client.watch(self.execution_id)
        seen.check_whole()
        check_settled(seen)
        assert not list((self.client.service.run_directory(self.execution_id) / "asks" / "questions").iterdir())
        return seen


def settled(seen: Seen) -> list[str]:
    """Return the asks that usages settle: one of a request that was lost settles none."""
    return [use.ask_id for use in of(seen, "usage") if use.ask_id]


def check_settled(seen: Seen) -> None:
    """Check that each ask is over, once."""
    asked = [ask.ask_id for ask in of(seen, "ask")]
    ended = settled(seen) + [end.ask_id for end in of(seen, "ask_end")]
    assert sorted(asked) == sorted(ended)
    assert len(set(asked)) == len(asked)


@asynccontextmanager
async def asking(
    client: Client, at: ProviderServer, line: str | list[str] = CALL, **fields: object
) -> AsyncIterator[Asking]:
    name = new_id("asks")
    fields = {"network": sandbox_pb2.NETWORK_NONE, "reserves_model_use": True, **provider(at), **fields}
    started = await client.start(name, line, **fields)
    assert started.reserves_model_use
    yield Asking(client, name)


def held() -> Reply:
    """An answer whose end waits for its gate."""
    reply = messages()
    reply.gate = asyncio.Event()
    return reply


@pytest.mark.parametrize("tier", [sandbox_pb2.SANDBOX_TIER_BUBBLEWRAP, sandbox_pb2.SANDBOX_TIER_NONE])
async def test_a_request_goes_when_it_is_granted_and_its_usage_settles_it(client: Client, tier: int) -> None:
    reply = held()
    async with providing(reply) as at, asking(client, at, sandbox_tier=tier) as execution:
        (ask,) = await execution.asked()
        reservation = ask.reservation
        assert (reservation.provider, reservation.model) == ("anthropic", "claude-sonnet-5-5")
        assert (reservation.input_tokens, reservation.max_output_tokens) == (-(-len(BODY) // 4), 100)
        assert reservation.max_cost_usd > 0
        assert not at.asked
        first = await execution.answer(ask.ask_id)
        assert first.is_granted
        assert await execution.answer(ask.ask_id, REFUSED) == first, "the first holds"
        reply.gate.set()
        seen = await execution.end()
        (use,) = of(seen, "usage")
        assert (use.ask_id, len(at.asked)) == (ask.ask_id, 1)
        assert b"<200>" in seen.output
        late = await refused(execution.answer("never"))
        assert isinstance(late, FailedPrecondition)


async def test_a_model_is_told_once_that_the_budget_is_nearly_spent(client: Client) -> None:
    last = ask_pb2.ReservationAnswer(is_granted=True, is_last_warning=True)
    sent = [{"role": "user", "content": "Go."}]
    call = CALL.replace('"messages": []', f'"messages": {json.dumps(sent)}')
    async with providing(messages()) as at, asking(client, at, f"{call}; {call}; {call}") as execution:
        for count, answer in enumerate((GRANTED, last, last), start=1):
            await execution.answer((await execution.asked(count))[-1].ask_id, answer)
        seen = await execution.end()
    bodies = [json.loads(request.body)["messages"] for request in at.asked]
    told = [{"role": "user", "content": [{"type": "text", "text": "Go."}, {"type": "text", "text": LAST}]}]
    assert bodies == [sent, told, sent]
    assert len([note for note in of(seen, "note") if "nearly spent" in note.text]) == 1


async def test_without_the_flag_nothing_is_asked(client: Client) -> None:
    async with providing(messages()) as at, asking(client, at) as asked:
        await asked.answer((await asked.asked())[0].ask_id)
        await asked.end()
        name = new_id("free")
        await client.start(name, CALL, network=sandbox_pb2.NETWORK_NONE, **provider(at))
        seen = await client.watch(name)
    assert not of(seen, "ask")
    assert [use.ask_id for use in of(seen, "usage")] == [""]
    assert not seen.end.reserves_model_use


async def test_what_may_go_later_is_asked_again_then(client: Client) -> None:
    async with providing(messages()) as at, asking(client, at) as execution:
        (first,) = await execution.asked()
        soon = timestamp_to_proto(datetime.now(UTC) + timedelta(seconds=0.3))
        await execution.answer(first.ask_id, ask_pb2.ReservationAnswer(reason="LATER", retry_time=soon))
        _, second = await execution.asked(2)
        assert not at.asked
        assert isinstance(await refused(execution.answer(first.ask_id)), NotFound), "that one is over"
        await execution.answer(second.ask_id)
        seen = await execution.end()
    assert second.reservation == first.reservation
    assert [(end.ask_id, end.is_use_unknown) for end in of(seen, "ask_end")] == [(first.ask_id, False)]
    assert b"<200>" in seen.output


async def test_an_agent_that_is_gone_leaves_no_ask(client: Client) -> None:
    async with providing(messages()) as at, asking(client, at, f"timeout 0.5 {CALL}; true") as execution:
        (ask,) = await execution.asked()
        seen = await execution.end()
    assert [(end.ask_id, end.is_use_unknown) for end in of(seen, "ask_end")] == [(ask.ask_id, False)]
    assert not at.asked


AGAIN = f"until {CALL} --fail; do :; done"


@pytest.mark.parametrize("was_sent", [False, True])
async def test_a_door_that_is_killed_ends_its_asks_and_asks_again(client: Client, was_sent: bool) -> None:
    reply = held()
    async with providing(reply, messages()) as at, asking(client, at, AGAIN) as execution:
        (first,) = await execution.asked()
        if was_sent:
            await execution.answer(first.ask_id)
            async with asyncio.timeout(30):
                while not at.asked:
                    await asyncio.sleep(0.01)
        os.kill(door_of(client, execution.execution_id), signal.SIGKILL)
        _, second = await execution.asked(2)
        if not was_sent:
            reply.gate.set()
        await execution.answer(second.ask_id)
        seen = await execution.end()
    assert [(end.ask_id, end.is_use_unknown) for end in of(seen, "ask_end")] == [(first.ask_id, was_sent)]
    assert settled(seen) == [second.ask_id]
    assert seen.end.state == State.STATE_SUCCEEDED


@pytest.mark.slow
@pytest.mark.parametrize("when", ["asked", "answered", "sent"])
async def test_an_ask_outlives_the_service_and_ends_with_its_runner(tmp_path: Path, when: str) -> None:
    async with running(tmp_path) as client, providing(held()) as at, asking(client, at) as execution:
        (ask,) = await execution.asked()
        if when == "answered":
            await execution.answer(ask.ask_id)
        client.service.kill()
        client.service.start()
        assert (await execution.answer(ask.ask_id)).is_granted
        if when == "sent":
            async with asyncio.timeout(30):
                while not at.asked:
                    await asyncio.sleep(0.01)
        assert [one.ask_id for one in await execution.asked()] == [ask.ask_id], "it is not asked again"
        os.kill(runner_of(client.service, execution.execution_id), signal.SIGKILL)
        seen = await execution.end()
    assert seen.end.reason == "RUNNER_LOST"
    assert [(end.ask_id, end.is_use_unknown) for end in of(seen, "ask_end")] == [(ask.ask_id, True)]


@pytest.mark.slow
@pytest.mark.parametrize("line", [CALL, f"{CALL}; sleep 600"])
async def test_after_a_refusal_the_execution_ends_by_its_reason(client: Client, line: str) -> None:
    async with providing(messages()) as at, asking(client, at, line) as execution:
        (ask,) = await execution.asked()
        await execution.answer(ask.ask_id, REFUSED)
        seen = await execution.end()
    assert (seen.end.state, seen.end.reason) == (State.STATE_FAILED, "BUDGET_EXCEEDED"), seen.end.message
    assert "nothing is left of it" in seen.end.message
    assert b"billing_error" in seen.output
    assert b"<402>" in seen.output
    assert not at.asked
