"""`boatyard cost` as people and programs read it: what is not known is never 0."""

import json

import click
import pytest
from boatyard.agent.v1.usage_pb2 import ModelUsageSum, UsageSum
from boatyard.gateway.v1 import cost_pb2, output_pb2
from click.testing import CliRunner

from services.cli import humanize, usage_view
from services.cli.commands import cost
from services.cli.screen import Screen

KNOWN = UsageSum(requests=2, tokens=1500, input_tokens=1000, output_tokens=500, cost_usd=1.25)
UNKNOWN = UsageSum(requests=1, unpriced_requests=1, tokens=70)
MIXED = UsageSum(requests=3, unpriced_requests=1, tokens=1570, input_tokens=1000, output_tokens=500, cost_usd=1.25)


@pytest.mark.parametrize(
    ("usages", "told"),
    [
        ([], "$0.00"),
        ([UsageSum()], "$0.00"),
        ([KNOWN], "$1.25"),
        ([UNKNOWN], "unknown"),
        ([KNOWN, UNKNOWN], "≥ $1.25"),
        ([MIXED], "≥ $1.25"),
        ([UsageSum(requests=1, cost_usd=0)], "$0.00"),
        ([UsageSum(requests=1, cost_usd=0.00012)], "$0.0001"),
        ([UsageSum(requests=1, cost_usd=12345.678)], "$12,345.68"),
    ],
)
def test_a_cost_is_what_is_known_of_it(usages: list[UsageSum], told: str) -> None:
    assert humanize.cost(*usages) == told


def answer() -> cost_pb2.GetCostResponse:
    groups = [
        cost_pb2.CostGroup(model="big", label_value="harbour", jobs=2, usage=KNOWN),
        cost_pb2.CostGroup(jobs=1, usage=UNKNOWN),
    ]
    return cost_pb2.GetCostResponse(groups=groups, total_groups=3, total=MIXED, total_jobs=3)


def test_a_table_ends_with_the_sum_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    cost.print_costs(Screen(), answer(), ["model", "label"], "team")
    printed = capsys.readouterr()
    assert [line.split("\t") for line in printed.out.splitlines()] == [
        ["MODEL", "team", "JOBS", "REQUESTS", "INPUT", "CACHED", "OUTPUT", "TOKENS", "COST"],
        ["big", "harbour", "2", "2", "1,000", "0", "500", "1,500", "$1.25"],
        ["unknown", "-", "1", "1", "unknown", "unknown", "unknown", "70", "unknown"],
        ["total", "", "3", "3", "1,000", "unknown", "500", "1,570", "≥ $1.25"],
    ]
    assert "1 more" in printed.err


def test_programs_get_null_for_what_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "with_gateway", lambda _: answer())
    run = CliRunner().invoke(cost.command, ["--by", "model", "--by", "label:team", "--json"])
    first, second, total = map(json.loads, run.stdout.splitlines())
    assert (first["model"], first["label"], first["label_value"], first["cost_usd"]) == ("big", "team", "harbour", 1.25)
    assert (second["model"], second["label_value"], second["cost_usd"], second["tokens"]) == (None, None, None, 70)
    assert (total["kind"], total["groups"], total["jobs"], total["cost_usd"]) == ("total", 3, 3, 1.25)


@pytest.mark.parametrize("by", ["nobody", "label:", "", "workers"])
def test_what_cannot_be_summed_by_is_named(by: str) -> None:
    with pytest.raises(click.BadParameter, match="label:KEY"):
        cost._dimensions([by])
    with pytest.raises(click.BadParameter):
        cost._dimensions(["model", "model"])


def test_show_says_what_is_known_and_what_is_claimed() -> None:
    rows = [ModelUsageSum(model="big", usage=KNOWN), ModelUsageSum(usage=UNKNOWN)]
    for output, told in (
        (output_pb2.Output(tokens_used=1500, cost_usd=1.25), ["1,500, $1.25"]),
        (output_pb2.Output(tokens_used=1570, usage=rows), ["1,570, ≥ $1.25"]),
        (output_pb2.Output(tokens_used=70), ["70, cost unknown"]),
        (output_pb2.Output(tokens_used=70, claimed_tokens=90), ["70, cost unknown", "90, as the agent says"]),
        (output_pb2.Output(claimed_tokens=90, claimed_cost_usd=0.5), ["90, $0.5000, as the agent says"]),
        (output_pb2.Output(), []),
    ):
        assert [text for _, text in usage_view.tokens(output)] == told
    assert list(usage_view.models(rows[:1])) == [], "one model of one execution: the line before says it all"
    assert [text for _, text in usage_view.models(rows)] == [
        "big: 2 requests, 1,500 tokens, $1.25",
        "unknown model: 1 request, 70 tokens, unknown",
    ]
    assert next(iter(usage_view.models(rows, are_of_several=True))) == ("cost", "≥ $1.25 in all executions")
