"""What a hook may say to a job that asks it: a server's answer, or the last line of a command's output, as JSON.

    {"allow": false, "reason": "not on a Friday"}
    {"prompt_addition": "Mind the tests in ci/.", "labels": {"team": "harbour"}}
    {"ask": "May agents change the deployment?"}

Anything that is not a JSON object is text for people, and means: go on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from services.common.untrusted_json import parse_json
from services.lifecycle.model.value import Recorded

MAX_REASON_BYTES: Final = 512
MAX_ADDITIONS_BYTES: Final = 64 << 10
"""The bound of all additions to one job's prompt together."""
MAX_LABELS: Final = 64


@dataclass(frozen=True, slots=True)
class Veto(Recorded):
    """A job may not go on; `reason` says why, for people, and may be empty."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class HookAnswer(Recorded):
    """The answer of a hook; an empty answer means: go on."""

    veto: Veto | None = None
    prompt_addition: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    ask: str = ""
    """A question that a person has to decide before the job goes on."""


def read_answer(text: bytes | str) -> HookAnswer:
    """Read a hook's answer. Raises ValueError, which says what in it has another type."""
    try:
        said = parse_json(text)
    except ValueError:  # text for people
        return HookAnswer()
    if not isinstance(said, dict):
        return HookAnswer()
    allow, labels = said.get("allow", True), said.get("labels", {})
    if allow is not True and allow is not False:
        raise ValueError('an "allow" that is neither true nor false')
    texts = {name: said.get(name, "") for name in ("prompt_addition", "ask")}
    for name, value in texts.items():
        if not _is_text(value):
            raise ValueError(f'a "{name}" that is no text')
    if not isinstance(labels, dict) or not all(map(_is_text, labels.values())) or not all(map(_is_text, labels)):
        raise ValueError('"labels" that are not an object of texts')
    return HookAnswer(None if allow else _veto(said.get("reason")), labels=labels, **texts)


def veto(reason: str) -> Veto:
    """Return a veto with its reason cut to MAX_REASON_BYTES."""
    return Veto(reason.strip().encode(errors="replace")[:MAX_REASON_BYTES].decode(errors="ignore"))


def _veto(reason: Any) -> Veto:  # noqa: ANN401 - any JSON
    return veto(reason if isinstance(reason, str) else "")


def _is_text(value: object) -> bool:
    """True when it is text that can be encoded: JSON allows lone surrogates."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False
