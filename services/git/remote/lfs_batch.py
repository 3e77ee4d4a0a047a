"""The messages of Git LFS: what a server is asked about objects, and what it answers.

https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from services.common.display import one_line
from services.common.untrusted_json import parse_json
from services.git.pointers import Pointer

MEDIA_TYPE: Final = "application/vnd.git-lfs+json"
_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_VALUE: Final = re.compile(r"([\x21-\x7e]([\x20-\x7e]{0,8190}[\x21-\x7e])?)?")
# What our own connection says.
_OURS: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding", "upgrade"})
_HREF_CHARACTERS: Final = 8192
_SAID_CHARACTERS: Final = 120


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the objects of a repository are, without the `/objects/batch`, and the headers that log in there."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Action:
    """Where to get an object, or to put it: with which headers, and until when, if that was said.

    `needs_login` means that the server wants to see who we are there too. `repr` leaves out what may be secret.
    """

    href: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    expires: datetime | None = None
    needs_login: bool = True

    @property
    def has_expired(self) -> bool:
        """True when the server itself would no longer take it."""
        return self.expires is not None and self.expires <= datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class ObjectAnswer:
    """What a server says of one object: an error, or what to do; nothing to do with what it has already."""

    error: str = ""
    actions: Mapping[str, Action] = field(default_factory=dict)


def ask(operation: str, pointers: Iterable[Pointer]) -> bytes:
    """Return the body that asks how to `download` or to `upload` objects."""
    objects = [{"oid": pointer.oid, "size": pointer.size} for pointer in pointers]
    body = {"operation": operation, "transfers": ["basic"], "objects": objects, "hash_algo": "sha256"}
    return json.dumps(body).encode()


def about(pointer: Pointer) -> bytes:
    """Return the body that asks a server whether what it was sent has arrived."""
    return json.dumps({"oid": pointer.oid, "size": pointer.size}).encode()


def read_answer(body: bytes) -> dict[str, ObjectAnswer]:
    """Return what a server says of each object, by its id. What is malformed is left out.

    Raises ValueError: it is no answer of Git LFS, or names another transfer than was offered.
    """
    answer = parse_json(body)
    objects = answer.get("objects") if isinstance(answer, dict) else None
    if objects is None or not isinstance(objects, list):
        raise ValueError("it has no list of objects")
    if answer.get("transfer") not in {None, "", "basic"} or answer.get("hash_algo") not in {None, "", "sha256"}:
        raise ValueError("it wants another transfer than `basic`, or other hashes than SHA-256")
    return {
        each["oid"]: _object(each) for each in objects if isinstance(each, dict) and isinstance(each.get("oid"), str)
    }


def read_login(body: bytes, default_url: str) -> Endpoint:
    """Return where `git-lfs-authenticate` leads, and how it logs in there.

    Raises ValueError: it is no answer of that.
    """
    answer = parse_json(body)
    if not isinstance(answer, dict):
        raise ValueError("it is no object of JSON")  # noqa: TRY004 - of what a server says, not of a caller
    found = _action({**answer, "href": answer.get("href") or default_url}, needs_login=False)
    if found is None:
        raise ValueError("it names no address")
    return Endpoint(found.href.rstrip("/"), found.headers)


def said(body: bytes) -> str:
    """Return the message of a server's error, on one short line; empty when it has none."""
    try:
        answer = parse_json(body)
    except ValueError:
        return ""
    message = answer.get("message") if isinstance(answer, dict) else None
    return one_line(message)[:_SAID_CHARACTERS] if isinstance(message, str) else ""


def _object(each: dict[str, Any]) -> ObjectAnswer:
    error = each.get("error")
    if error:
        code, message = (error.get("code"), error.get("message")) if isinstance(error, dict) else (None, None)
        words = one_line(message)[:_SAID_CHARACTERS] if isinstance(message, str) and message else "no reason given"
        return ObjectAnswer(f"{words} ({code})" if isinstance(code, int) and 0 < code < 1000 else words)
    actions = each.get("actions")
    needs_login = each.get("authenticated") is not True
    named = actions.items() if isinstance(actions, dict) else ()
    found = {name: action for name, value in named if (action := _action(value, needs_login=needs_login))}
    return ObjectAnswer(actions=found)


def _action(value: object, *, needs_login: bool) -> Action | None:
    href = value.get("href") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(href, str) or len(href) > _HREF_CHARACTERS:
        return None
    given = value.get("header")
    headers = {
        name: text
        for name, text in (given.items() if isinstance(given, dict) else ())
        if _NAME.fullmatch(name) and name.lower() not in _OURS and isinstance(text, str) and _VALUE.fullmatch(text)
    }
    return Action(href, headers, _expiry(value), needs_login)


def _expiry(value: dict[str, Any]) -> datetime | None:
    """Return when an action ends. What it says of a number of seconds is counted from now, and so by our own clock."""
    try:
        time = datetime.fromisoformat(value["expires_at"])
    except (KeyError, TypeError, ValueError):
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
