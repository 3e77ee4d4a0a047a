"""Prices are those of the package that the table was made from, for every model and class of tokens."""

import itertools
from datetime import UTC, datetime

import genai_prices
import pytest
from genai_prices import data

from services.agent.providers import ModelWire
from services.execution.door.prices import TABLE, cost_usd
from tests.kit import prices

NOW = datetime(2026, 11, 30, tzinfo=UTC)
COUNTS = [
    *((1000, 0, 0, 0, 0), (0, 500, 0, 0, 0), (1000, 500, 0, 0, 0), (1000, 500, 9000, 0, 0), (10, 5, 90, 70, 0)),
    *((10, 5, 90, 70, 30), (150_000, 5, 60_000, 0, 0), (300_000, 50, 0, 0, 0), (250_000, 1, 20_000, 5000, 5000)),
]
NAMES = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens")


def usage(model: str, counts: tuple[int, ...], **fields: object) -> dict:
    return {"model": model, "is_partial": False, **dict(zip(NAMES, counts, strict=True)), **fields}


def test_the_table_is_what_the_package_says() -> None:
    assert TABLE.read_text() == prices.table(), "run `make prices`"


@pytest.mark.parametrize("family", prices.FAMILIES)
def test_a_request_costs_what_the_package_says(family: str) -> None:
    (provider,) = (one for one in data.providers if one.id == family)
    models = [one for one in provider.models if prices._row(one)]
    assert len(models) > 20
    for model, counts in itertools.product(models, COUNTS):
        read, written, cached, stored, _ = counts
        whole = genai_prices.Usage(
            input_tokens=read + cached + stored,
            output_tokens=written,
            cache_read_tokens=cached,
            cache_write_tokens=stored,
            cache_write_1h_tokens=counts[4],
        )
        if cost_usd(prices.FAMILIES[family], usage(model.id, counts), NOW) is None and not known(model.id, family):
            continue  # its id is the beginning of its models' names, and the name of none
        expected = genai_prices.calc_price(whole, model.id, provider_id=family, genai_request_timestamp=NOW)
        cost = cost_usd(prices.FAMILIES[family], usage(model.id, counts), NOW)
        if cost is not None:  # a class without a price is unknown here, and nothing there
            assert cost == pytest.approx(float(expected.total_price)), (model.id, counts)
        else:
            assert counts[1], (model.id, counts)


def known(model: str, family: str) -> bool:
    (provider,) = (one for one in data.providers if one.id == family)
    return provider.find_model(model) is not None


@pytest.mark.parametrize(
    ("wire", "fields"),
    [
        (ModelWire.MESSAGES, {"model": "of-nobody"}),
        (ModelWire.MESSAGES, {"model": "gpt-5"}),
        (ModelWire.CHAT, {"model": "gpt-oss-120b"}),
        (ModelWire.MESSAGES, {"model": "claude-sonnet-5-5", "is_partial": True, **dict.fromkeys(NAMES, 0)}),
    ],
)
def test_what_is_not_known_is_not_nothing(wire: ModelWire, fields: dict) -> None:
    assert cost_usd(wire, usage("", COUNTS[0]) | fields) is None
