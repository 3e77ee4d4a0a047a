"""`boatyard kinds`."""

import asyncio

import click
from boatyard.gateway.v1 import job_pb2

from services.cli import options, shapes
from services.cli.clients import open_gateway
from services.cli.fields import plain
from services.cli.screen import Screen


@click.command("kinds", short_help="List the kinds of jobs.")
@options.as_json
def command(as_json: bool) -> None:
    """List the kinds of jobs: what they must have, and where a person is asked."""
    screen = Screen()

    async def main() -> list[job_pb2.JobKind]:
        async with open_gateway() as gateway:
            request = job_pb2.ListJobKindsRequest(page_size=1000)
            return list((await gateway.ask(gateway.jobs.ListJobKinds(request))).kinds)

    kinds = asyncio.run(main())
    if as_json:
        for kind in kinds:
            screen.json(shapes.line({**plain(kind), "kind": "job_kind", "name": kind.kind}))
    else:
        screen.table(("KIND", "NEEDS", "WHAT"), map(_row, kinds), cut_last=True)


def _row(kind: job_pb2.JobKind) -> tuple[str, ...]:
    needed = [*kind.required_fields, *(f"data.{name}" for name in kind.required_data)]
    return kind.kind, " ".join(needed), kind.description
