"""The fields of the Usage event of one request, as the door knows them."""

from typing import Final

from services.common.text import without_halves
from services.execution.door.attempts import Attempt
from services.execution.door.http import Answer
from services.execution.door.terms import of_model, terms_of
from services.execution.door.usage import Usage

_MOST_CHARACTERS: Final = 200
_MOST_SEARCHES: Final = 1_000_000
_UNKNOWN: Final = Usage()


def usage_fields(
    attempt: Attempt,
    seconds: float,
    answer: Answer | None = None,
    usage: Usage = _UNKNOWN,
    *,
    is_complete: bool = False,
) -> dict[str, object]:
    """Return what is known of a request that was sent `seconds` ago; without an `answer`, that none has come."""
    request_id = b""
    if answer is not None:
        request_id = answer.value(b"request-id") or answer.value(b"x-request-id")
    return {
        "request_id": _shown(usage.request_id or request_id.decode("latin-1")),
        "model": _shown(usage.model or attempt.model),
        "input_tokens": usage.input or 0,
        "output_tokens": usage.output or 0,
        "cache_read_tokens": usage.cache_read or 0,
        "cache_write_tokens": usage.cache_write or 0,
        "cache_write_1h_tokens": usage.cache_write_1h or 0,
        "reasoning_tokens": usage.reasoning or 0,
        "provider": attempt.serving.provider.name,
        "http_status": 0 if answer is None else answer.status,
        "latency_seconds": round(seconds, 6),
        "terms": terms_of(*usage.terms, *of_model(attempt.route.wire, usage.model or attempt.model)),
        "web_searches": min(usage.searches or 0, _MOST_SEARCHES),
        "is_partial": not is_complete or usage.input is None or usage.output is None,
    }


def _shown(text: str) -> str:
    """Return a text that somebody else wrote as events can have it: without the halves of characters that JSON has."""
    return without_halves(text[:_MOST_CHARACTERS])
