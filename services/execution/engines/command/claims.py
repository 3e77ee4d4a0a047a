"""Compares what an agent says of its own use with what its model's door has counted."""

from typing import Final

from services.execution.model import ModelUse

_TOLERATED: Final = 0.01
"""Agents round, and some leave out what was asked for a title."""


def difference(said: ModelUse, seen: ModelUse) -> str | None:
    """Return a line for people where an agent's claim differs from what was seen; None where it does not."""
    parts = []
    if said.claimed_tokens is not None and _differ(said.claimed_tokens, seen.tokens):
        parts.append((f"{said.claimed_tokens:,} tokens", f"{seen.tokens:,}"))
    if None not in (said.claimed_cost_usd, seen.cost_usd) and _differ(said.claimed_cost_usd, seen.cost_usd):
        parts.append((f"${said.claimed_cost_usd:.4f}", f"${seen.cost_usd:.4f}"))
    if not parts:
        return None
    claimed, counted = (" and ".join(texts) for texts in zip(*parts, strict=True))
    return f"the agent says that it used {claimed}; its model's door has counted {counted}, which is what counts"


def _differ(one: float | None, other: float | None) -> bool:
    one, other = one or 0.0, other or 0.0
    return abs(one - other) > _TOLERATED * max(one, other)
