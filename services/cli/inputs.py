"""What a job works on, and what it is found by, as people type it."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

import click
from boatyard.gateway.v1 import job_pb2

from services.cli.parsing import duration, moment, text_or_file


@dataclass(frozen=True, slots=True)
class Input:
    """All of it, read; what is empty or None is left to the gateway."""

    kind: str
    files: dict[str, bytes]
    data: str
    labels: dict[str, str]
    delay: float | None
    not_before: datetime | None

    @classmethod
    def read(
        cls,
        *,
        kind: str | None,
        files: tuple[str, ...],
        data: str | None,
        labels: tuple[str, ...],
        delay: float | None,
        not_before: str | None,
    ) -> Self:
        """Read what was typed, and the files that it names. Raises click.UsageError."""
        return cls(
            kind or "",
            {name: _content(path) for name, path in (_pair("--file", "NAME=PATH", each) for each in files)},
            text_or_file(data) if data else "",
            dict(_pair("--label", "KEY=VALUE", each) for each in labels),
            delay,
            None if not_before is None else moment("--not-before", not_before),
        )

    def fill(self, spec: job_pb2.JobSpec) -> None:
        """Put it into a job's specification."""
        spec.kind = self.kind
        spec.files.extend(job_pb2.InputFile(name=name, content=content) for name, content in self.files.items())
        spec.data = self.data.encode()
        spec.labels.update(self.labels)
        if self.delay is not None:
            spec.delay.CopyFrom(duration(self.delay))
        if self.not_before is not None:
            spec.not_before_time.FromDatetime(self.not_before)


def selector(typed: str) -> job_pb2.LabelSelector:
    """Read which label jobs are to have: KEY=VALUE, KEY (any value), KEY!=VALUE or !KEY (all other jobs)."""
    lacks = typed.startswith("!") or "!=" in typed
    key, equals, value = typed.removeprefix("!").replace("!=", "=", 1).partition("=")
    if not key:
        raise click.UsageError(f"--label {typed}: must be KEY=VALUE, KEY, KEY!=VALUE or !KEY")
    match = job_pb2.LabelSelector.MATCH_LACKS if lacks else job_pb2.LabelSelector.MATCH_HAS
    return job_pb2.LabelSelector(key=key, values=[value] if equals else (), match=match)


def _pair(option: str, form: str, typed: str) -> tuple[str, str]:
    name, equals, value = typed.partition("=")
    if not name or not equals:
        raise click.UsageError(f"{option} {typed}: must be {form}")
    return name, value


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise click.UsageError(f"cannot read {path}: {error.strerror}") from None
