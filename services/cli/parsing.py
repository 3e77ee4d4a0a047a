"""Reads what people type: texts, files, labels, times and durations. Wrong input raises click.UsageError."""

import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import click
from boatyard.gateway.v1 import job_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp


def text_or_file(typed: str) -> str:
    """Return a text as it was typed, or the content of the file that it names as @FILE (@- is standard input)."""
    return read_text(typed[1:]).rstrip("\n") if typed.startswith("@") else typed


def read_text(file: str) -> str:
    """Read a file, or standard input for "-"."""
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"cannot read {file}: {error}") from None


def moment(option: str, typed: str) -> datetime:
    """Read a time in ISO 8601; without a zone it is local."""
    try:
        return datetime.fromisoformat(typed).astimezone(UTC)
    except (ValueError, OverflowError):
        raise click.UsageError(f"{option} {typed}: must be a time such as 2030-01-31T08:00+01:00") from None


def timestamp(time: datetime) -> Timestamp:
    """Write a time."""
    result = Timestamp()
    result.FromDatetime(time)
    return result


def duration(seconds: float) -> Duration:
    """Write a duration, cut to what the message can hold, which is longer than the gateway accepts."""
    result = Duration()
    result.FromNanoseconds(int(min(max(seconds, -1e9), 1e9) * 1e9))
    return result


def input_files(typed: Iterable[str]) -> list[job_pb2.InputFile]:
    """Read files given as NAME=PATH."""
    named = [_name_and_value("--file", "NAME=PATH", each) for each in typed]
    return [job_pb2.InputFile(name=name, content=_content(path)) for name, path in named]


def labels(typed: Iterable[str]) -> dict[str, str]:
    """Read labels given as KEY=VALUE."""
    return dict(_name_and_value("--label", "KEY=VALUE", each) for each in typed)


def selector(typed: str) -> job_pb2.LabelSelector:
    """Read a label selector: KEY=VALUE, KEY (any value), KEY!=VALUE or !KEY (all other jobs)."""
    lacks = typed.startswith("!") or "!=" in typed
    key, equals, value = typed.removeprefix("!").replace("!=", "=", 1).partition("=")
    if not key:
        raise click.UsageError(f"--label {typed}: must be KEY=VALUE, KEY, KEY!=VALUE or !KEY")
    match = job_pb2.LabelSelector.MATCH_LACKS if lacks else job_pb2.LabelSelector.MATCH_HAS
    return job_pb2.LabelSelector(key=key, values=[value] if equals else (), match=match)


def _name_and_value(option: str, form: str, typed: str) -> tuple[str, str]:
    name, equals, value = typed.partition("=")
    if not name or not equals:
        raise click.UsageError(f"{option} {typed}: must be {form}")
    return name, value


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise click.UsageError(f"cannot read {path}: {error.strerror}") from None
