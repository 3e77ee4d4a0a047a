"""Reads what people type: types of click's parameters. Input that cannot be read is wrong usage, and click names it."""

import math
import os
import re
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import click
from boatyard.gateway.v1 import catalog_pb2, job_pb2, policy_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from services.agent.recordings import RecordingError, packed
from services.cli import budgets
from services.cli.options import TEXT

Value = TypeVar("Value")

MOST = (1 << 63) - 1
"""The largest number that any field holds."""
_SHOWN = 60
_LONGEST_SPAN = 1_000_000

_DAYS = re.compile(r"([1-9]\d{0,4})d")
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMGTkmgt]?)(?:[iI]?[bB])?")


class ShapeError(ValueError):
    """A text is not of the shape that the option's metavar shows."""


class Reads(click.ParamType[Value]):
    """A text that a function reads; the function raises ValueError for what it cannot read."""

    def __init__(self, read: Callable[[str], Value]) -> None:
        self.name = read.__name__
        self._read = read

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Value:
        """Return what was read. Raises click.UsageError."""
        text = TEXT.convert(value, param, ctx)
        try:
            return self._read(text)
        except ShapeError:
            self.fail(f"{text!r} must be {getattr(param, 'metavar', None)}", param, ctx)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class OrNothing(click.ParamType[Any]):
    """What another type reads, or an empty text."""

    def __init__(self, inner: click.ParamType[Any]) -> None:
        self.name = inner.name
        self._inner = inner

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 - of the inner type
        """Return an empty text as it is, and what the type reads of any other. Raises click.UsageError."""
        return "" if value == "" else self._inner.convert(value, param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """Return what the help shows for a value."""
        return self._inner.get_metavar(param, ctx)


def text_or_file(typed: str) -> str:
    """Return a text as it was typed, or the content of the file that it names as @FILE (@- is standard input).

    @@ is a text's own @, for those that begin with a mention.
    """
    if typed.startswith("@@"):
        return typed[1:]
    if not typed.startswith("@"):
        return typed
    try:
        return _text_of(typed[1:]).rstrip("\n")
    except ValueError as error:
        raise ValueError(f"{error}; a text that begins with @ is written with two of them, @{typed[:20]}…") from None


def shell_line(typed: str) -> str:
    """Return a line for a shell, where it has a command: a blank one would check nothing, and say that all is well."""
    if not typed.strip():
        raise ValueError("it is blank, as of a variable that is not set: give a command, or leave the option out")
    return typed


def whole_number(typed: str) -> int:
    """Read an integer that a field of the contract can hold."""
    try:
        number = int(typed)
    except ValueError:
        raise ValueError(f"{_shown(typed)} is not a whole number") from None
    return _held(number, typed)


def size(typed: str) -> int:
    """Read bytes, with or without a unit: 1500, 512K, 2G, 1.5GiB."""
    match = _SIZE.fullmatch(typed.strip())
    if match is None:
        raise ValueError(f"{_shown(typed)} is not a size such as 512M or 2G")
    exponent = 10 * " KMGT".index(match[2].upper() or " ")
    return _held(int(min(float(match[1]), float(MOST)) * (1 << exponent)), typed)


def number(typed: str) -> float:
    """Read a number. Neither infinity nor NaN is one: no limit can be compared with them."""
    try:
        value = float(typed)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{_shown(typed)} is not a number")
    return value


def span(typed: str) -> float:
    """Read how many hours or days, above 0 and up to a million."""
    value = number(typed)
    if not 0 < value <= _LONGEST_SPAN:
        raise ValueError(f"{_shown(typed)} is out of range: above 0, and at most {_LONGEST_SPAN:,}")
    return value


def seconds(typed: str) -> Duration:
    """Read a number of seconds."""
    try:
        return duration(number(typed))
    except ValueError:
        raise ValueError(f"{_shown(typed)} is not a number of seconds") from None


def duration(number_of_seconds: float) -> Duration:
    """Write a duration, cut to what the message can hold, which is longer than the gateway accepts."""
    result = Duration()
    result.FromNanoseconds(int(min(max(number_of_seconds, -1e9), 1e9) * 1e9))
    return result


def moment(typed: str) -> Timestamp:
    """Read a time in ISO 8601; without a zone it is local."""
    result = Timestamp()
    try:
        result.FromDatetime(datetime.fromisoformat(typed).astimezone(UTC))
    except (ValueError, OverflowError):
        raise ValueError(f"{typed!r} must be a time such as 2030-01-31T08:00+01:00") from None
    return result


def day(typed: str) -> date:
    """Read a day: its date, or as 7d the first of the last seven days in UTC, of which today is one."""
    if (days := _DAYS.fullmatch(typed)) is not None:
        return datetime.now(UTC).date() - timedelta(days=int(days[1]) - 1)
    try:
        return date.fromisoformat(typed)
    except ValueError:
        raise ValueError(f"{typed!r} must be a day such as 2030-01-31, or a number of days such as 7d") from None


def pair(typed: str) -> tuple[str, str]:
    """Read NAME=VALUE. Raises ShapeError."""
    name, equals, value = typed.partition("=")
    if not name or not equals:
        raise ShapeError(typed)
    return name, value


def secret(typed: str) -> tuple[str, str]:
    """Read a secret given as NAME=@FILE, as NAME=@- on standard input, or as NAME in this command's own environment.

    Never as a value: whoever may list processes sees their arguments.
    """
    name, equals, source = typed.partition("=")
    if equals and not source.startswith("@"):
        raise ValueError(f"{name} must be NAME=@FILE, NAME=@- or NAME: other users see the arguments of a command")
    if equals:
        return name, _text_of(source[1:]).rstrip("\n")
    if name not in os.environ:
        raise ValueError(f"{name!r} is not in the environment: give NAME=@FILE, or set the variable")
    return name, os.environ[name]


def secret_file(typed: str) -> str:
    """Read a secret from the file that @FILE names; @- is standard input. Never as a value: see `secret`."""
    if not typed.startswith("@"):
        raise ValueError("must be @FILE, or @- for standard input: other users see the arguments of a command")
    return _text_of(typed[1:]).strip()


def input_file(typed: str) -> job_pb2.InputFile:
    """Read a file given as NAME=PATH."""
    name, path = pair(typed)
    return job_pb2.InputFile(name=name, content=_bytes_of(path))


def recording(typed: str) -> bytes:
    """Read a recording, and pack it."""
    try:
        return packed(_bytes_of(typed))
    except RecordingError as error:
        raise ValueError(f"{typed} {error}") from None


def document(typed: str) -> catalog_pb2.Document:
    """Read a text file."""
    return catalog_pb2.Document(name=Path(typed).name, content=_text_of(typed))


def checkpoints(typed: str) -> policy_pb2.Checkpoints:
    """Read the stages of STAGE,… or none."""
    return policy_pb2.Checkpoints(before=() if typed == "none" else map(str.strip, typed.split(",")))


def selector(typed: str) -> job_pb2.LabelSelector:
    """Read a label selector: KEY=VALUE, KEY (any value), KEY!=VALUE or !KEY (all other jobs)."""
    lacks = typed.startswith("!") or "!=" in typed
    key, equals, value = typed.removeprefix("!").replace("!=", "=", 1).partition("=")
    if not key:
        raise ValueError(f"{typed!r} must be KEY=VALUE, KEY, KEY!=VALUE or !KEY")
    match = job_pb2.LabelSelector.MATCH_LACKS if lacks else job_pb2.LabelSelector.MATCH_HAS
    return job_pb2.LabelSelector(key=key, values=[value] if equals else (), match=match)


def _held(number: int, typed: str) -> int:
    if abs(number) > MOST:
        raise ValueError(f"{_shown(typed)} is out of range: at most {MOST}")
    return number


def _shown(typed: str) -> str:
    return repr(typed if len(typed) <= _SHOWN else f"{typed[:_SHOWN]}…")


def _text_of(path: str) -> str:
    """Read a file, or standard input for "-"."""
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"cannot read {path}: it is not UTF-8") from None


def _bytes_of(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None


TEXT_OR_FILE = Reads(text_or_file)
SHELL_LINE = Reads(shell_line)
WHOLE_NUMBER = Reads(whole_number)
NUMBER = Reads(number)
SIZE = Reads(size)
SPAN = Reads(span)
SECONDS = Reads(seconds)
MOMENT = Reads(moment)
DAY = Reads(day)
PAIR = Reads(pair)
SECRET = Reads(secret)
SECRET_FILE = Reads(secret_file)
INPUT_FILE = Reads(input_file)
RECORDING = Reads(recording)
DOCUMENT = Reads(document)
CHECKPOINTS = Reads(checkpoints)
BUDGET = Reads(budgets.limits)
SELECTOR = Reads(selector)
