"""What went wrong with a request to the model, and whether asking again may help."""

from dataclasses import dataclass

import anthropic

_PASSING_STATUSES = {408, 409, 429}
_PASSING_KINDS = {"overloaded_error", "api_error", "rate_limit_error", "timeout_error"}
_LONGEST_MESSAGE = 1500


@dataclass(frozen=True, slots=True)
class ModelFailure:
    """`text` is for people; `retry_after` in seconds, where the API says when to come back."""

    text: str
    passes: bool
    retry_after: float | None = None


def classify(error: Exception) -> ModelFailure:
    """Explain what the SDK, or the connection below it, raised. All but a refusal in the API's own words may pass."""
    if isinstance(error, anthropic.APIStatusError):
        return _refused(error)
    cause = error.__cause__ if isinstance(error, anthropic.APIConnectionError) else None
    detail = str(cause or error) or type(cause or error).__name__
    if isinstance(error, anthropic.APIConnectionError):
        return ModelFailure(f"the model cannot be reached: {detail[:_LONGEST_MESSAGE]}", passes=True)
    return ModelFailure(f"the answer broke off: {detail[:_LONGEST_MESSAGE]}", passes=True)


def _refused(error: anthropic.APIStatusError) -> ModelFailure:
    kind, message = _body(error)
    if error.status_code < 300:  # the stream had begun well
        return ModelFailure(f"the answer broke off: {kind}: {message}", passes=kind in _PASSING_KINDS)
    passes = error.status_code in _PASSING_STATUSES or error.status_code >= 500
    return ModelFailure(f"status {error.status_code}, {kind}: {message}", passes, _retry_after(error))


def _body(error: anthropic.APIStatusError) -> tuple[str, str]:
    """The API's own words; of something else that answers in its place, whatever there is."""
    body = error.body
    inner = body.get("error") if isinstance(body, dict) else None
    if isinstance(inner, dict):
        return str(inner.get("type", "error")), str(inner.get("message", ""))[:_LONGEST_MESSAGE]
    return "error", str(body or error)[:_LONGEST_MESSAGE]


def _retry_after(error: anthropic.APIStatusError) -> float | None:
    try:
        return float(error.response.headers.get("retry-after", ""))
    except ValueError:
        return None
