"""What no option of the contract says of the question for costs."""

import pytest
from boatyard.gateway.v1 import cost_pb2

from services.gateway.cost.wire import check_query

DAYS = ("", "2030-01-31", "2030-02-01")


@pytest.mark.parametrize("first", DAYS)
@pytest.mark.parametrize("last", DAYS)
def test_days_that_end_before_they_begin_are_no_cost_of_zero(first: str, last: str) -> None:
    wrong = [field for field, _ in check_query(cost_pb2.GetCostRequest(first_day=first, last_day=last))]
    assert wrong == (["last_day"] if (first, last) == (DAYS[2], DAYS[1]) else [])
