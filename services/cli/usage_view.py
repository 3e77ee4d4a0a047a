"""Says to people what models were used for, as labels and texts."""

from collections.abc import Iterable, Sequence

from boatyard.agent.v1.usage_pb2 import ModelUsageSum
from boatyard.gateway.v1 import output_pb2

from services.cli import humanize

_MODELS_SHOWN = 10


def tokens(output: output_pb2.Output) -> Iterable[tuple[str, str]]:
    """Say what an execution used as a whole, and what its agent says that it did where that differs."""
    claimed = f", {humanize.dollars(output.claimed_cost_usd)}" if output.HasField("claimed_cost_usd") else ""
    claim = f"{output.claimed_tokens:,}{claimed}, as the agent says"
    if output.HasField("tokens_used"):
        yield "tokens", f"{output.tokens_used:,}, {_cost(output)}"
        if output.HasField("claimed_tokens") and output.claimed_tokens != output.tokens_used:
            yield "", claim
    elif output.HasField("claimed_tokens"):
        yield "tokens", claim
    if output.HasField("turns"):
        yield "model", f"{humanize.count(output.turns, 'turn')}, {humanize.count(output.tool_calls, 'tool call')}"


def models(rows: Sequence[ModelUsageSum], *, are_of_several: bool = False) -> Iterable[tuple[str, str]]:
    """Say what each of several models was used for; or what all executions of a job used together."""
    if rows and are_of_several:
        yield "cost", f"{humanize.cost(*(row.usage for row in rows))} in all executions"
    if len(rows) > 1 or (rows and are_of_several):
        yield from (("", _model(row)) for row in rows[:_MODELS_SHOWN])
        if hidden := len(rows[_MODELS_SHOWN:]):
            yield "", f"… and {hidden} more: see --json"


def _model(row: ModelUsageSum) -> str:
    day = f" on {row.day}" if row.day else ""
    requests, used = humanize.count(row.usage.requests, "request"), f"{row.usage.tokens:,} tokens"
    return f"{row.model or 'unknown model'}{day}: {requests}, {used}, {humanize.cost(row.usage)}"


def _cost(output: output_pb2.Output) -> str:
    if output.HasField("cost_usd"):
        return humanize.dollars(output.cost_usd)
    known = humanize.cost(*(row.usage for row in output.usage)) if output.usage else "unknown"
    return "cost unknown" if known == "unknown" else known
