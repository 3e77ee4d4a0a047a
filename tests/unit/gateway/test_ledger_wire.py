"""What coordinators say of requests to models: what a provider says goes to the books, and is never refused."""

import math
from datetime import UTC, datetime, timedelta

import pytest
from boatyard.ledger.v1 import ledger_pb2 as pb

from services.agent.asks import ModelGate
from services.common.errors import Invalid
from services.execution.door.retry_after import LONGEST_S
from services.gateway.coordinators.ledger.wire import use_from_proto
from services.lifecycle.books import AskEnd, _use_of
from services.lifecycle.model.budgets import GateState, Settlement
from services.lifecycle.model.value import pack


def read(use: Settlement) -> Settlement:
    return use_from_proto(pb.SettleModelUseRequest(use=pack(use)))


def test_the_longest_time_for_which_a_provider_wants_to_be_left_alone_is_taken() -> None:
    until = datetime.now(UTC) + timedelta(seconds=math.ceil(LONGEST_S + 1))  # as the door rounds it
    end = AskEnd("a", gates=(ModelGate(provider="one", key=1, model="m", open_time=until),))
    assert read(_use_of("run-1", end)).closed[0].seconds > LONGEST_S


def test_a_use_of_more_than_can_be_counted_is_the_most_that_can() -> None:
    use = read(Settlement(execution_id="run-1", ask_id="a", tokens=4 << 40, cost_usd=1e12))
    assert (use.tokens, use.cost_usd) == (1_000_000_000, 1_000_000)
    assert read(Settlement(execution_id="run-1", ask_id="a")).tokens is None


@pytest.mark.parametrize(
    "fields",
    [
        {"tokens": -1},
        {"cost_usd": -1.0},
        {"closed": (GateState(provider="one", key=1, model="m", seconds=-1.0),)},
        {"closed": (GateState(provider="one", key=65, model="m"),)},
        {"closed": (GateState(provider="one", key=1, model="m\0"),)},
    ],
    ids=str,
)
def test_what_no_request_has_is_refused(fields: dict) -> None:
    with pytest.raises(Invalid):
        read(Settlement(execution_id="run-1", ask_id="a", **fields))
