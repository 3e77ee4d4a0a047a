"""`boatyard checkpoints`."""

import click
from boatyard.gateway.v1.checkpoint_pb2 import Checkpoint, ListCheckpointsRequest

from services.cli import humanize, options, shapes
from services.cli.clients import with_gateway
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
    states = [] if everything else [Checkpoint.STATE_PENDING]
    request = ListCheckpointsRequest(job_id=job or "", states=states)
    found = with_gateway(lambda gateway: gateway.list_all(gateway.checkpoints.ListCheckpoints, request, limit))
    Screen().listing(found, shapes.checkpoint, _COLUMNS, _row, as_json=as_json, cut_last=True)


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
