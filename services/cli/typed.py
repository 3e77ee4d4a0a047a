"""What people type, read: texts, files, time spans."""

import sys
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


def duration(seconds: float) -> Duration:
    """Write a time span; what is longer than any the gateway takes stays that."""
    result = Duration()
    result.FromNanoseconds(int(min(max(seconds, -1e9), 1e9) * 1e9))
    return result
