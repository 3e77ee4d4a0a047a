"""What people type, read: texts, files, time spans."""

import sys
from datetime import UTC, datetime
from pathlib import Path

import click
from google.protobuf.duration_pb2 import Duration


def text_or_file(typed: str) -> str:
    """Return a text as it was typed, or what stands in the file that it names as @FILE (@- is standard input)."""
    return read_text(typed[1:]).rstrip("\n") if typed.startswith("@") else typed


def read_text(file: str) -> str:
    """Read a file, or standard input for "-". Raises click.UsageError."""
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"cannot read {file}: {error}") from None


def moment(option: str, typed: str) -> datetime:
    """Read a time of ISO 8601; without a zone it is this machine's. Raises click.UsageError."""
    try:
        return datetime.fromisoformat(typed).astimezone(UTC)
    except (ValueError, OverflowError):
        raise click.UsageError(f"{option} {typed}: must be a time such as 2030-01-31T08:00+01:00") from None


def duration(seconds: float) -> Duration:
    """Write a time span; what is longer than any the gateway takes stays that."""
    result = Duration()
    result.FromNanoseconds(int(min(max(seconds, -1e9), 1e9) * 1e9))
    return result
