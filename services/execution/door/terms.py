"""What makes a request dearer or cheaper than its tokens: how it is served, and searches of the web. Our own table.

A term is how a provider serves a request that is not served as usual: `priority`, `flex`, `batch`, `fast`, `us`, or a
tool of its own that it runs, such as `file_search`. One that is not in the table has no known price.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from services.agent.providers import ModelWire

USUAL_SEARCHES: Final = 10
"""How often a request may search the web that does not say how often."""

BILLED_TOOLS: Final = ("file_search", "code_interpreter", "image_generation")
"""Tools of Responses that are billed by call, session or picture; the items of an answer have `_call` at their end."""

_USUAL: Final = frozenset(
    {"", "auto", "default", "standard", "standard_only", "on_demand", "unspecified", "global", "not_available"}
)
_PREFIX: Final = re.compile("service_tier_|on_demand_")  # of Gemini's values
_NO_TERM: Final = re.compile("[^a-z0-9_.-]")  # a report has room for a byte a character
_MOST_TERMS: Final = 8
_TERM_CHARACTERS: Final = 40
_MOST_SEARCHES: Final = 1000

_DATED: Final = r"(?:-\d{4}-?\d{2}-?\d{2})?"
_FACTORS: Final[Mapping[ModelWire, Sequence[tuple[str, str, float]]]] = {
    # By how much tokens cost more or less. Sources, of November 2026: platform.claude.com/docs, "Pricing" and "Fast
    # mode"; openai.com/api-priority-processing and "Flex processing".
    ModelWire.MESSAGES: (("batch", ".*", 0.5), ("us", ".*", 1.1), ("fast", f"claude-opus-5{_DATED}", 2.0)),
    ModelWire.RESPONSES: (
        ("flex", ".*", 0.5),
        ("batch", ".*", 0.5),
        ("priority", f"gpt-5\\.5{_DATED}", 2.5),
        ("priority", f"gpt-5(?:\\.[124])?(?:-codex)?{_DATED}|gpt-5\\.4-mini{_DATED}|gpt-4\\.1-nano{_DATED}", 2.0),
        ("priority", f"gpt-5-mini{_DATED}", 1.8),
        ("priority", f"gpt-4\\.1(?:-mini)?{_DATED}|o3{_DATED}|gpt-4o-2024-05-13", 1.75),
        ("priority", "gpt-4o(?:-2024-08-06|-2024-11-20)?", 1.7),
        ("priority", f"gpt-4o-mini{_DATED}", 5 / 3),
        ("priority", f"o4-mini{_DATED}", 2.0 / 1.1),
    ),
    ModelWire.GEMINI: (("flex", ".*", 0.5), ("batch", ".*", 0.5)),
}
_SEARCH_USD: Final[Mapping[ModelWire, Sequence[tuple[str, float]]]] = {
    ModelWire.MESSAGES: ((".*", 0.01),),
    ModelWire.RESPONSES: (("(?:gpt-5|o3|o4).*", 0.01), (".*", 0.025)),
    ModelWire.GEMINI: (("gemini-3.*", 0.014),),
}


def factor(wire: ModelWire, model: str, terms: Iterable[str]) -> float | None:
    """Return by what the price of a request's tokens is multiplied; None when one of its terms has no known price."""
    product = 1.0
    for term in terms:
        known = (number for name, models, number in _FACTORS[wire] if name == term and re.fullmatch(models, model))
        if (number := next(known, None)) is None:
            return None
        product *= number
    return product


def dearest(wire: ModelWire, model: str, terms: Iterable[str]) -> float | None:
    """Return the same at most: a request that asks to be served for less may be served as usual."""
    factors = [factor(wire, model, (term,)) for term in terms]
    product = 1.0
    for each in factors:
        if each is None:
            return None
        product *= max(1.0, each)
    return product


def searches_usd(wire: ModelWire, model: str, count: int) -> float | None:
    """Return what so many searches of the web cost; None when that is not known."""
    prices = (price for models, price in _SEARCH_USD[wire] if re.fullmatch(models, model))
    price = next(prices, None) if count else 0.0
    return None if price is None else count * price


def terms_of(*said: object) -> tuple[str, ...]:
    """Return those of the words by which a request is not served as usual, each once."""
    words = (
        _NO_TERM.sub("?", _PREFIX.sub("", each.lower())[:_TERM_CHARACTERS]) for each in said if isinstance(each, str)
    )
    return tuple(dict.fromkeys(word for word in words if word not in _USUAL))[:_MOST_TERMS]


def asked_terms(wire: ModelWire, fields: Mapping[str, Any], model: str) -> tuple[str, ...]:
    """Return the terms that a request asks for. Tools are none yet: of those that are offered few are used."""
    said = [fields.get(name) for name in ("service_tier", "serviceTier", "speed", "inference_geo")]
    return terms_of(*said, *of_model(wire, model))


def of_model(wire: ModelWire, model: str) -> tuple[str, ...]:
    """Return the term of a model that searches the web by itself, of which a chat's usage says nothing."""
    return ("search",) if wire is ModelWire.CHAT and "search" in model else ()


def asked_searches(wire: ModelWire, fields: Mapping[str, Any]) -> int:
    """Return how often a request may search the web."""
    most = 0
    for tool in _tools(fields):
        kind = tool.get("type")
        if isinstance(kind, str) and kind.startswith("web_search"):
            most += _number(tool.get("max_uses"), USUAL_SEARCHES)
        elif wire is ModelWire.GEMINI and tool.keys() & {"google_search", "googleSearch", "googleSearchRetrieval"}:
            most += USUAL_SEARCHES
    return min(most, _MOST_SEARCHES)


def _tools(fields: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    tools = fields.get("tools")
    return [tool for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []


def _number(value: object, otherwise: int) -> int:
    return value if type(value) is int and value >= 0 else otherwise
