"""`boatyard show`."""

import asyncio

import click
from boatyard.gateway.v1 import job_pb2

from services.cli import options, shapes
from services.cli.clients import gateway
from services.cli.requests import get_job_or_execution
from services.cli.screen import Screen
from services.cli.telling import tell_execution, tell_job


@click.command("show", short_help="Show a job.")
@options.job_or_execution
@options.as_json
def command(id_: str, as_json: bool) -> None:
    """Show one job or one execution in full: where it stands and why, its steps, what it changed."""
    screen = Screen()

    async def main() -> None:
        async with gateway() as way:
            found = await get_job_or_execution(way, id_)
        if isinstance(found, job_pb2.Job):
            screen.json(shapes.line(shapes.job(found))) if as_json else tell_job(screen, found)
        else:
            screen.json(shapes.line(shapes.execution(found))) if as_json else tell_execution(screen, found)

    asyncio.run(main())
