"""An agent's claim is compared with what its door has counted; rounding is no difference."""

import pytest

from services.execution.engines.command.claims import difference
from services.execution.model import ModelUse

SAID = ModelUse(0, None, 1, 0, "", claimed_tokens=1000, claimed_cost_usd=0.5)


@pytest.mark.parametrize(
    ("tokens", "cost", "told"),
    [
        (1000, 0.5, None),
        (1005, 0.501, None),
        (1000, None, None),
        (1100, 0.5, "1,000 tokens; its model's door has counted 1,100"),
        (1000, 0.6, "$0.5000; its model's door has counted $0.6000"),
        (0, None, "1,000 tokens; its model's door has counted 0"),
        (2000, 1.0, "1,000 tokens and $0.5000; its model's door has counted 2,000 and $1.0000"),
    ],
)
def test_a_difference_is_told(tokens: int, cost: float | None, told: str | None) -> None:
    found = difference(SAID, ModelUse(tokens, cost, 1, 0, ""))
    assert (found is None) if told is None else (found is not None and told in found)


def test_who_claims_nothing_differs_from_nothing() -> None:
    assert difference(ModelUse(0, None, 1, 0, ""), ModelUse(7, 0.1, 1, 0, "")) is None
