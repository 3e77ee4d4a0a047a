"""The most that a request to a model may use, as far as that can be known before it is sent."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from services.agent.asks import ModelGate, Reservation
from services.agent.providers import ModelWire
from services.execution.door.attempts import Attempt, model_asked, object_in
from services.execution.door.http import Request
from services.execution.door.prices import cost_usd

USUAL_OUTPUT: Final = 32_768
"""What a request may write that does not say how much. Models may write more; hardly any answer does."""

_BYTES_A_TOKEN: Final = 4
_IMAGE: Final = re.compile(rb"(?:iVBORw0KGgo|/9j/|R0lGOD|UklGR)[A-Za-z0-9+/=\\]{1024,}")  # PNG, JPEG, GIF, WebP
_IMAGE_TOKENS: Final = 5_000  # an image costs by its size in pixels, and no provider more than this
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
    read, written = input_tokens(first.body), output_tokens(wire, object_in(first.body))
    costs = [_cost(wire, model or asked, first.body, read, written) for model in {each.model for each in attempts}]
    return Reservation(
        wire=wire,
        provider=first.serving.provider.name,
        model=asked[:_MOST_CHARACTERS],
        input_tokens=read,
        max_output_tokens=written,
        max_cost_usd=None if None in costs else max(cost for cost in costs if cost is not None),
        ways=tuple(gate_of(each, asked) for each in attempts[:_MOST_WAYS]),
    )


def gate_of(attempt: Attempt, asked: str) -> ModelGate:
    """Return what limits an attempt together with others; `asked` is the model of the request."""
    model = (attempt.model or asked)[:_MOST_CHARACTERS]
    return ModelGate(provider=attempt.serving.provider.name, key=attempt.key_number, model=model)


def input_tokens(body: bytes) -> int:
    """Estimate the tokens of a request from its size, in which images have more bytes than they cost."""
    images = [len(match[0]) for match in _IMAGE.finditer(body)]
    text = -(-(len(body) - sum(images)) // _BYTES_A_TOKEN)
    return text + sum(min(size // _BYTES_A_TOKEN, _IMAGE_TOKENS) for size in images)


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


def _cost(wire: ModelWire, model: str, body: bytes, read: int, written: int) -> float | None:
    """Return what a request costs when it writes all that it may, and nothing that it reads is in a cache yet."""
    kept = read if b'"cache_control"' in body else 0
    usage = {
        "model": model,
        "is_partial": False,
        "input_tokens": read - kept,
        "output_tokens": written,
        "cache_read_tokens": 0,
        "cache_write_tokens": kept,
        "cache_write_1h_tokens": kept if b'"1h"' in body else 0,
    }
    return cost_usd(wire, usage)
