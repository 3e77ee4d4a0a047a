"""What a door learns of gates from whoever grants its requests, what it tells them, and that each ask is over once."""

import asyncio
import contextlib
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from boatyard.execution.v1 import event_pb2

from services.agent.asks import GRANTED, ModelGate, Reservation, ReservationAnswer
from services.agent.providers import ModelProvider, ModelWire
from services.execution.door import asking, grants, outages
from services.execution.door.server import Door
from services.execution.inbox.asks import Asks
from tests.kit.model_provider import Reply, message, providing
from tests.unit.execution.door.doors import TOKEN, Served
from tests.unit.execution.door.test_outages import PATHS, provider
from tests.unit.execution.door.test_storm import ANSWERS, REFUSED, asked

Answers = Callable[[Reservation], ReservationAnswer | None]


class Granting:
    """Stands for the runner and the driver: keeps what is reported, and answers at once, if at all."""

    def __init__(self, asks: Asks, answers: Answers) -> None:
        self._asks = asks
        self._answers = answers
        self.asked: dict[str, Reservation] = {}
        self.ended: dict[str, list[dict[str, Any]]] = {}
        self.over: Counter[str] = Counter()
        self.troubles: list[Any] = []

    async def ask(self, ask_id: str, reservation: Reservation) -> None:
        self.asked[ask_id] = reservation
        self._asks.ask(ask_id, reservation)
        if (answer := self._answers(reservation)) is not None:
            assert self._asks.answer(ask_id, answer) == answer, "it is read as it was written"

    async def ask_end(self, ask_id: str, *, is_use_unknown: bool, gates: Any = ()) -> None:
        assert not is_use_unknown
        self.over[ask_id] += 1
        self.ended[ask_id] = list(gates)
        self._asks.end(ask_id)

    async def usage(self, wire: ModelWire, fields: dict[str, Any], number: int = 0) -> None:
        if fields.get("ask_id"):
            self.over[fields["ask_id"]] += 1

    async def trouble(self, trouble: Any) -> None:
        self.troubles.append(trouble)

    async def sent(self, *_: Any) -> None: ...

    async def unbilled(self, *_: Any) -> None: ...

    async def note(self, text: str) -> None: ...


@contextlib.asynccontextmanager
async def granting(
    tmp_path: Path, answers: Answers, *providers: ModelProvider, patience_s: float = 20.0, must_answer: bool = True
) -> AsyncIterator[tuple[Served, Granting]]:
    asks = Asks(tmp_path, must_answer=must_answer)
    asks.create()
    reports = Granting(asks, answers)
    listening = socket.create_server(("127.0.0.1", 0))
    serving = asyncio.ensure_future(Door(providers, TOKEN, reports, patience_s, asks=asks).serve(listening))
    try:
        yield Served(listening.getsockname()[1], -1), reports
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        listening.close()


def closed(way: ModelGate, seconds: float) -> ModelGate:
    return replace(way, open_time=datetime.now(UTC) + timedelta(seconds=seconds))


def held(reservation: Reservation, seconds: float) -> ReservationAnswer:
    gates = tuple(closed(way, seconds) for way in reservation.ways)
    return ReservationAnswer(is_granted=False, message="left alone", retry_time=gates[0].open_time, gates=gates)


async def test_what_another_execution_was_told_is_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages, "_SPREAD_S", 0.01)
    times: list[int] = []
    async with providing(message()) as at:

        def answers(reservation: Reservation) -> ReservationAnswer:
            times.append(len(at.asked))
            return held(reservation, 0.2) if len(times) == 1 else GRANTED

        async with granting(tmp_path, answers, provider(at)) as (door, told):
            assert (await door.ask("/v1/messages", {"model": "a"}))[0] == 200
        assert (times, len(at.asked)) == ([0, 0], 1), "it was sent once it was granted, and not before"
    assert [way.model for way in told.asked.popitem()[1].ways] == ["a"]
    assert set(told.over.values()) == {1}


async def test_what_is_closed_for_longer_than_anybody_waits_ends_it(tmp_path: Path) -> None:
    async with (
        providing(message()) as at,
        granting(tmp_path, lambda one: held(one, 90), provider(at)) as (door, told),
    ):
        assert (await door.ask("/v1/messages", {"model": "a"}))[0] == 429
        assert not at.asked
    (trouble,) = told.troubles
    assert (trouble.is_over, trouble.provider) == (True, "one")
    assert 85 < trouble.pause_s <= 90, "the job waits until then"


async def test_another_key_is_used_where_only_one_is_left_alone(tmp_path: Path) -> None:
    def answers(reservation: Reservation) -> ReservationAnswer:
        assert [way.key for way in reservation.ways] == [1, 2]
        return ReservationAnswer(is_granted=True, gates=(closed(reservation.ways[0], 90),))

    async with providing(message()) as at:
        two = replace(provider(at), keys=("first", "second"))
        async with granting(tmp_path, answers, two) as (door, _):
            assert (await door.ask("/v1/messages", {"model": "a"}))[0] == 200
        assert [one.headers["x-api-key"] for one in at.asked] == ["second"]


async def test_who_is_told_to_wait_tells_it_before_the_next_key_is_tried(tmp_path: Path) -> None:
    busy = Reply(status=429, headers={"retry-after": "90"})
    async with providing(busy, message()) as at:
        two = replace(provider(at), keys=("first", "second"))
        async with granting(tmp_path, lambda _: GRANTED, two) as (door, told):
            assert (await door.ask("/v1/messages", {"model": "a"}))[0] == 200
        assert [one.headers["x-api-key"] for one in at.asked] == ["first", "second"]
    (gates,) = told.ended.values()
    assert [(gate["provider"], gate["key"], gate["model"]) for gate in gates] == [("one", 1, "a")]
    event = event_pb2.AskEnd(ask_id="a", gates=gates)  # as the service makes it of what the runner has written
    assert 85 < event.gates[0].open_time.seconds - time.time() < 92
    assert list(told.over.values()) == [1, 1]


async def test_a_model_of_any_name_has_a_gate_of_a_name_that_databases_have_room_for(tmp_path: Path) -> None:
    async with (
        providing(Reply(status=429, headers={"retry-after": "90"})) as at,
        granting(tmp_path, lambda _: GRANTED, provider(at)) as (door, told),
    ):
        await door.ask("/v1/messages", {"model": "a\0\ud800" + "b" * 300})
    name = "a\N{REPLACEMENT CHARACTER}?" + "b" * 252
    (asked,), (gates,) = told.asked.values(), told.ended.values()
    assert (asked.model, asked.ways[0].model, gates[0]["model"]) == (name, name, name)


async def test_what_nobody_answers_is_sent_where_nobody_has_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grants, "_ANSWERED_WITHIN_S", 0.1)
    async with (
        providing(message()) as at,
        granting(tmp_path, lambda _: None, provider(at), must_answer=False) as (door, told),
    ):
        for _ in range(3):
            assert (await door.ask("/v1/messages", {"model": "a"}))[0] == 200
        assert len(at.asked) == 3
    assert list(told.over.values()) == [1], "the next ones are not asked for, for a while"


@pytest.mark.parametrize("wire", PATHS)
async def test_through_a_storm_each_ask_is_over_once(
    tmp_path: Path, wire: ModelWire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is charged twice or missed: of all that is granted, one end is told, and a use of each that answered."""
    monkeypatch.setattr(outages, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(outages, "_SPREAD_S", 0.01)
    monkeypatch.setattr(asking, "_TOLD_FROM_S", 0.01)
    whole = ANSWERS[wire]
    cuts = [Reply(whole.pieces, type=whole.type, cut=number) for number in range(2)]
    storm = [reply for one in cuts for reply in (*REFUSED, one)]
    async with (
        providing(*storm, whole) as at,
        granting(tmp_path, lambda _: GRANTED, provider(at, wire=wire), patience_s=60) as (door, told),
    ):
        for _ in range(len(cuts) + 1):
            assert await asked(door, wire) == 200
        assert len(at.asked) == len(storm) + 1
    assert told.over.keys() == told.asked.keys()
    assert set(told.over.values()) == {1}
    used = told.asked.keys() - told.ended.keys()
    assert len(used) == len(cuts) + 1
    assert sum(bool(gates) for gates in told.ended.values()) == len(cuts), "each that said for how long closed a gate"
