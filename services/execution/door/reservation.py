"""The most that a request to a model may use, as far as that can be known before it is sent."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from services.agent.asks import ModelGate, Reservation
from services.agent.providers import ModelWire
from services.common.text import without_halves
from services.execution.door import terms
from services.execution.door.attempts import Attempt, model_asked, object_in
from services.execution.door.http import Request
from services.execution.door.input_size import input_tokens
from services.execution.door.prices import cost_usd

USUAL_OUTPUT: Final = 32_768
"""What a request may write that does not say how much. Models may write more; hardly any answer does."""

_MOST_TOKENS: Final = 1 << 24  # no model writes as much, whatever a request allows it
_MOST_WAYS: Final = 64
_MOST_CHARACTERS: Final = 255  # of a model's name
_OUTPUT_BOUNDS: Final[Mapping[ModelWire, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    # The fields with the bound, and those with the number of answers.
    ModelWire.MESSAGES: (("max_tokens",), ()),
    ModelWire.RESPONSES: (("max_output_tokens",), ()),
    ModelWire.CHAT: (("max_completion_tokens", "max_tokens"), ("n",)),
    ModelWire.GEMINI: (("maxOutputTokens", "max_output_tokens"), ("candidateCount", "candidate_count")),
}


def reservation(request: Request, attempts: Sequence[Attempt]) -> Reservation:
    """Return what a request may use, whoever of the providers answers it. Raises NoProviderError."""
    first = attempts[0]
    wire = first.route.wire
    asked = first.model or model_asked(request, first.body, first.route)
    fields = object_in(first.body)
    read, written = input_tokens(first.body, fields), output_tokens(wire, fields)
    kept = read if b'"cache_control"' in first.body else 0
    usage = {
        "is_partial": False,
        "input_tokens": read - kept,
        "output_tokens": written,
        "cache_read_tokens": 0,
        "cache_write_tokens": kept,
        "cache_write_1h_tokens": kept if b'"1h"' in first.body else 0,
        "web_searches": terms.asked_searches(wire, fields),
    }
    costs = [_cost(wire, model or asked, fields, usage) for model in {each.model for each in attempts}]
    return Reservation(
        wire=wire,
        provider=first.serving.provider.name,
        model=_name(asked),
        input_tokens=read,
        max_output_tokens=written,
        max_cost_usd=None if None in costs else max(cost for cost in costs if cost is not None),
        ways=tuple(gate_of(each, asked) for each in attempts[:_MOST_WAYS]),
    )


def gate_of(attempt: Attempt, asked: str) -> ModelGate:
    """Return what limits an attempt together with others; `asked` is the model of the request."""
    model = _name(attempt.model or asked)
    return ModelGate(provider=attempt.serving.provider.name, key=attempt.key_number, model=model)


def _name(model: str) -> str:
    """Return a model's name as messages and databases have room for it: an agent may ask for anything."""
    return without_halves(model[:_MOST_CHARACTERS].replace("\0", "\N{REPLACEMENT CHARACTER}"))


def output_tokens(wire: ModelWire, fields: Mapping[str, Any]) -> int:
    """Return the most tokens that a request may have written, by its own bound where it has one.

    Of two spellings the larger counts: which one a provider heeds is its own.
    """
    places: list[object] = [fields]
    if wire is ModelWire.GEMINI:
        places = [fields.get(name) for name in ("generationConfig", "generation_config")]
    bounds, answers = _OUTPUT_BOUNDS[wire]
    return min(_number(places, bounds, USUAL_OUTPUT) * _number(places, answers, 1), _MOST_TOKENS)


def _number(places: Sequence[object], names: Sequence[str], otherwise: int) -> int:
    values = [place.get(name) for place in places if isinstance(place, dict) for name in names]
    return max((value for value in values if type(value) is int and value > 0), default=otherwise)


def _cost(wire: ModelWire, model: str, fields: Mapping[str, Any], usage: Mapping[str, Any]) -> float | None:
    """Return what a request costs when it uses all that it may, and nothing that it reads is in a cache yet."""
    asked = terms.asked_terms(wire, fields, model.lower())
    return cost_usd(wire, {**usage, "model": model, "terms": asked}, at_most=True)
