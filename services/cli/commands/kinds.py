"""`boatyard kinds`."""

import click
from boatyard.gateway.v1 import job_pb2

from services.cli import options, shapes
from services.cli.clients import with_gateway
from services.cli.fields import plain
from services.cli.screen import Screen


@click.command("kinds", short_help="List the kinds of jobs.")
@options.as_json
def command(as_json: bool) -> None:
    """List the kinds of jobs: what a job of each kind needs, and where a person is asked."""
    request = job_pb2.ListJobKindsRequest()
    kinds = with_gateway(lambda gateway: gateway.list_all(gateway.jobs.ListJobKinds, request))
    Screen().listing(kinds, _shape, ("KIND", "NEEDS", "WHAT"), _row, as_json=as_json, cut_last=True)


def _shape(kind: job_pb2.JobKind) -> shapes.Shape:
    return {**plain(kind), "kind": "job_kind", "name": kind.kind}


def _row(kind: job_pb2.JobKind) -> tuple[str, ...]:
    needed = [*kind.required_fields, *(f"data.{name}" for name in kind.required_data)]
    return kind.kind, " ".join(needed), kind.description
