"""`boatyard checkpoints`."""

import asyncio

import click
from boatyard.gateway.v1.checkpoint_pb2 import Checkpoint, ListCheckpointsRequest

from services.cli import humanize, options, shapes
from services.cli.clients import open_gateway
from services.cli.screen import Screen, one_line

_COLUMNS = ("CHECKPOINT", "JOB", "STATE", "AGE", "EXPIRES IN", "BY", "QUESTION")


@click.command("checkpoints", short_help="List what waits for a person.")
@click.option("--all", "everything", is_flag=True, help="Also what has been decided.")
@click.option("--job", type=options.TEXT, metavar="ID", help="Only of this job.")
@click.option(
    "-n", "--limit", metavar="N", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many at most."
)
@options.as_json
def command(everything: bool, job: str | None, limit: int, as_json: bool) -> None:
    """List what jobs ask, the newest first.

    `boatyard show JOB` and `boatyard diff JOB` show what it is about; `boatyard approve`, `boatyard reject` and
    `boatyard request-changes` answer.
    """
    screen = Screen()
    states = [] if everything else [Checkpoint.STATE_PENDING]

    async def main() -> list[Checkpoint]:
        async with open_gateway() as gateway:
            request = ListCheckpointsRequest(job_id=job or "", states=states, page_size=limit)
            return list((await gateway.ask(gateway.checkpoints.ListCheckpoints(request))).checkpoints)

    found = asyncio.run(main())
    if as_json:
        for checkpoint in found:
            screen.json(shapes.line(shapes.checkpoint(checkpoint)))
    else:
        screen.table(_COLUMNS, map(_row, found), cut_last=True)


def _row(checkpoint: Checkpoint) -> tuple[str, ...]:
    waits = checkpoint.state == Checkpoint.STATE_PENDING
    return (
        checkpoint.checkpoint_id,
        checkpoint.job_id,
        shapes.checkpoint_state(checkpoint),
        humanize.age(checkpoint.create_time),
        humanize.until(checkpoint.expire_time) if waits else "",
        checkpoint.decider.name,
        one_line(checkpoint.question, 80),
    )
