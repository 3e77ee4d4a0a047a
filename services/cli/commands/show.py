"""`boatyard show`."""

import click
from boatyard.gateway.v1 import job_pb2

from services.cli import options, shapes
from services.cli.clients import with_gateway
from services.cli.job_view import print_execution, print_job
from services.cli.lookup import get_job_or_execution
from services.cli.screen import Screen


@click.command("show", short_help="Show a job.")
@options.job_or_execution
@options.as_json
def command(id_: str, as_json: bool) -> None:
    """Show a job or an execution in full: its state and the reason for it, its stages, and what it changed."""
    screen = Screen()
    target = with_gateway(lambda gateway: get_job_or_execution(gateway, id_))
    if isinstance(target, job_pb2.Job):
        screen.json(shapes.job(target)) if as_json else print_job(screen, target)
    else:
        screen.json(shapes.execution(target)) if as_json else print_execution(screen, target)
