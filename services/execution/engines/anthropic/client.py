"""Getting one answer from the model, with as many retries as that takes."""

import asyncio
import random
import time
from dataclasses import dataclass
from typing import Any, cast

import anthropic
import httpx2
from anthropic.types import MessageParam

from services.execution.engines.anthropic.history import Reply
from services.execution.engines.anthropic.inner_door import InnerDoor
from services.execution.engines.anthropic.models import shows_thoughts
from services.execution.engines.anthropic.recorder import Recorder
from services.execution.engines.anthropic.reply_builder import BrokenStreamError, ReplyBuilder
from services.execution.engines.anthropic.task import ModelTask
from services.execution.engines.anthropic.tools import SYSTEM, TOOLS

_TRIES = 12
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 8.0
_LONGEST_RETRY_AFTER_S = 120.0
# The API sends a sign of life every few seconds, even while the model thinks; so long a silence is a dead connection.
_TIMEOUT = anthropic.Timeout(120.0, connect=15.0)
_FAILURES = (anthropic.APIError, httpx2.HTTPError, BrokenStreamError, ValueError)
_TRANSIENT_STATUSES = {408, 409, 429}
_TRANSIENT_KINDS = {"overloaded_error", "api_error", "rate_limit_error", "timeout_error"}
_LONGEST_MESSAGE = 1500


class ModelFailedError(Exception):
    """The API refuses, and asking again would not help."""


class ModelUnavailableError(Exception):
    """The model was asked many times without success."""


@dataclass(frozen=True, slots=True)
class ModelFailure:
    """What went wrong with a request, and whether it is transient, so that asking again may help.

    `text` is for people; `retry_after` is in seconds, if the API says when to come back.
    """

    text: str
    transient: bool
    retry_after: float | None = None


class ModelClient:
    """Asks a model. An answer that is cut off counts for nothing: its usage is unknown, and it is requested again."""

    def __init__(
        self,
        base_url: str,
        token: str,
        task: ModelTask,
        recorder: Recorder,
        door: InnerDoor | None = None,
    ) -> None:
        """`base_url` and `token` are those of the `door`, which counts what is used, and waits out outages."""
        self._client = anthropic.AsyncAnthropic(api_key=token, base_url=base_url, max_retries=0, timeout=_TIMEOUT)
        self._task = task
        self._recorder = recorder
        self._door = door
        self.last_sign_at: float | None = None
        """When the model last gave a sign of life during a request, on the monotonic clock; None between requests."""
        self._request: dict[str, Any] = {
            "model": task.model,
            "max_tokens": task.max_tokens,
            "system": "\n\n".join(part for part in (SYSTEM, task.system_prompt.strip()) if part),
            "tools": TOOLS,
        }
        if shows_thoughts(task.model):
            self._request["thinking"] = {"type": "adaptive", "display": "summarized"}

    async def answer(self, messages: list[dict[str, Any]]) -> Reply:
        """Return an answer that arrived complete. Raises ModelFailedError, ModelUnavailableError."""
        self.last_sign_at = time.monotonic()
        try:
            for attempt in range(1, _TRIES + 1):
                try:
                    return await self._request_once(messages)
                except _FAILURES as error:
                    failure = classify(error)
                if not failure.transient:
                    raise ModelFailedError(failure.text)
                if self._is_waited_out(failure):
                    raise ModelUnavailableError(f"for as long as it is waited for: {failure.text}")
                if attempt < _TRIES:
                    await self._pause(failure, attempt)
            raise ModelUnavailableError(f"after {_TRIES} tries: {failure.text}")
        finally:
            self.last_sign_at = None

    def _is_waited_out(self, failure: ModelFailure) -> bool:
        """True when asking again has been tried for long enough, by the door, or would be too early."""
        if self._door is not None and self._door.outage is not None:
            return True
        return (failure.retry_after or 0.0) > _LONGEST_RETRY_AFTER_S

    async def _request_once(self, messages: list[dict[str, Any]]) -> Reply:
        builder = ReplyBuilder()
        # As they came, not as the SDK's types know them, so that blocks of a newer model go back unchanged.
        conversation = cast("list[MessageParam]", messages)
        stream = await self._client.messages.create(**self._request, messages=conversation, stream=True)
        async with stream:
            async for event in stream:
                self.last_sign_at = time.monotonic()
                piece = builder.take(event)
                if piece is not None:
                    self._recorder.piece(*piece, builder.id)
        reply = builder.whole()
        if self._door is not None:
            await self._door.counted(reply.id)
        return reply

    async def _pause(self, failure: ModelFailure, attempt: int) -> None:
        backoff = min(_FIRST_PAUSE_S * 2 ** (attempt - 1), _LONGEST_PAUSE_S) * random.uniform(0.5, 1.0)  # noqa: S311
        pause = max(backoff, failure.retry_after or 0.0)
        self._recorder.note(f"{failure.text}; asking again in {pause:.1f} s, try {attempt + 1} of {_TRIES}", "retry")
        await asyncio.sleep(pause)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def classify(error: Exception) -> ModelFailure:
    """Explain what the SDK, or the connection below it, raised. All but the API's own refusals may be transient."""
    if isinstance(error, anthropic.APIStatusError):
        return _classify_status(error)
    cause = error.__cause__ if isinstance(error, anthropic.APIConnectionError) else None
    detail = str(cause or error) or type(cause or error).__name__
    if isinstance(error, anthropic.APIConnectionError):
        return ModelFailure(f"the model cannot be reached: {detail[:_LONGEST_MESSAGE]}", transient=True)
    return ModelFailure(f"the answer broke off: {detail[:_LONGEST_MESSAGE]}", transient=True)


def _classify_status(error: anthropic.APIStatusError) -> ModelFailure:
    kind, message = _kind_and_message(error)
    if error.status_code < 300:  # the stream had started without an error
        return ModelFailure(f"the answer broke off: {kind}: {message}", transient=kind in _TRANSIENT_KINDS)
    transient = error.status_code in _TRANSIENT_STATUSES or error.status_code >= 500
    return ModelFailure(f"status {error.status_code}, {kind}: {message}", transient, _retry_after(error))


def _kind_and_message(error: anthropic.APIStatusError) -> tuple[str, str]:
    """Return the kind and message of the API's error; when something else answered instead, whatever there is."""
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
