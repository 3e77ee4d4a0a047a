"""`boatyard checkpoints`."""

from contextlib import aclosing

import click
from boatyard.gateway.v1.checkpoint_pb2 import Checkpoint, ListCheckpointsRequest, WatchCheckpointsRequest

from services.cli import humanize, options, shapes
from services.cli.clients import Gateway, with_gateway
from services.cli.resumed_streams import Outage, open_checkpoints
from services.cli.screen import Screen, first_line

_COLUMNS = ("CHECKPOINT", "JOB", "STATE", "AGE", "EXPIRES IN", "BY", "QUESTION")


@click.command("checkpoints", short_help="List checkpoints.")
@click.option("--all", "everything", is_flag=True, help="Include checkpoints that have been decided.")
@click.option("--job", type=options.TEXT, metavar="ID", help="Only those of this job.")
@click.option(
    "-n", "--limit", metavar="N", type=click.IntRange(1, 1000), default=50, show_default=True, help="List at most N."
)
@click.option("--watch", is_flag=True, help="Show those that wait, then each that is new or decided, until Ctrl-C.")
@options.of_project("Only those of jobs")
@options.as_json
def command(*, everything: bool, job: str | None, limit: int, watch: bool, project: str, as_json: bool) -> None:
    """List checkpoints, the questions of jobs to people, newest first.

    `boatyard show JOB` and `boatyard diff JOB` show what a question is about; `boatyard approve`, `boatyard reject` and
    `boatyard request-changes` answer it.
    """
    if watch:
        watched = WatchCheckpointsRequest(project_id=project, job_id=job or "")
        with_gateway(lambda gateway: _watch(gateway, watched, as_json=as_json))
    states = [] if everything else [Checkpoint.STATE_PENDING]
    request = ListCheckpointsRequest(project_id=project, job_id=job or "", states=states)
    checkpoints = with_gateway(lambda gateway: gateway.list_all(gateway.checkpoints.ListCheckpoints, request, limit))
    Screen().listing(checkpoints, shapes.checkpoint, _COLUMNS, _row, as_json=as_json, cut_last=True)


async def _watch(gateway: Gateway, request: WatchCheckpointsRequest, *, as_json: bool) -> None:
    """Show checkpoints that wait, and their changes, until Ctrl-C."""
    screen = Screen()
    async with aclosing(open_checkpoints(gateway, request, Outage(screen.say))) as changes:
        async for checkpoint in changes:
            screen.json(shapes.checkpoint(checkpoint)) if as_json else screen.row(_row(checkpoint))


def _row(checkpoint: Checkpoint) -> tuple[str, ...]:
    is_pending = checkpoint.state == Checkpoint.STATE_PENDING
    return (
        checkpoint.checkpoint_id,
        checkpoint.job_id,
        shapes.checkpoint_state(checkpoint),
        humanize.age(checkpoint.create_time),
        humanize.until(checkpoint.expire_time) if is_pending else "",
        checkpoint.decider.name,
        first_line(checkpoint.question, 80),
    )
