"""What an execution asks, and its answers: the first holds, is told at once, and nothing is left of what is over."""

import os
import select
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.agent.asks import GRANTED, Reservation, ReservationAnswer
from services.agent.providers import ModelWire
from services.execution.inbox.asks import AskOverError, Asks

RESERVATION = Reservation(
    wire=ModelWire.MESSAGES, provider="ours", model="model", input_tokens=7, max_output_tokens=9, max_cost_usd=0.5
)
REFUSED = ReservationAnswer(is_granted=False, reason="BUDGET_EXCEEDED", message="nothing is left")
LATER = ReservationAnswer(is_granted=False, reason="LATER", retry_time=datetime(2026, 11, 30, 12, tzinfo=UTC))
LAST = ReservationAnswer(is_granted=True, is_last_warning=True)


@pytest.fixture
def asks(tmp_path: Path) -> Asks:
    asks = Asks(tmp_path)
    asks.create()
    return asks


@pytest.mark.parametrize("answer", [GRANTED, REFUSED, LATER, LAST])
def test_every_answer_comes_back_as_it_was_given(asks: Asks, answer: ReservationAnswer) -> None:
    asks.ask("a", RESERVATION)
    assert asks.answer_to("a") is None
    assert asks.answer("a", answer) == answer
    assert asks.answer_to("a") == answer


def test_of_many_answers_at_once_one_holds_and_all_are_told_it(asks: Asks) -> None:
    asks.ask("a", RESERVATION)
    with ThreadPoolExecutor() as pool:
        told = set(pool.map(lambda answer: asks.answer("a", answer), [GRANTED, REFUSED, LATER, LAST] * 8))
    assert told == {asks.answer_to("a")}


def test_what_is_over_or_was_never_asked_has_no_answer(asks: Asks, tmp_path: Path) -> None:
    asks.ask("a", RESERVATION)
    asks.ask("b", RESERVATION)
    asks.answer("b", REFUSED)
    assert asks.open() == [("a", None), ("b", REFUSED)]
    asks.end("a")
    asks.end("b")
    assert asks.open() == []
    for ask_id, where in (("a", asks), ("never", asks), ("a", Asks(tmp_path / "asks-nothing"))):
        with pytest.raises(AskOverError):
            where.answer(ask_id, GRANTED)
    left = {file.name for file in (tmp_path / "asks").rglob("*") if not file.is_dir()}
    assert left == {"bell", "lock"}


def test_whoever_waits_hears_of_each_answer(asks: Asks) -> None:
    asks.ask("unheard", RESERVATION)
    asks.answer("unheard", GRANTED)  # rings for nobody
    bell = asks.bell()
    try:
        for ask_id in ("a", "b"):
            asks.ask(ask_id, RESERVATION)
            assert not select.select([bell], [], [], 0)[0]
            asks.answer(ask_id, GRANTED)
            assert select.select([bell], [], [], 0)[0]
            os.read(bell, 100)
    finally:
        os.close(bell)
