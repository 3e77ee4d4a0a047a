"""`boatyard approve`."""

import click
from boatyard.gateway.v1.checkpoint_pb2 import ApproveCheckpointRequest, Checkpoint

from services.cli import decisions, options


@click.command("approve", short_help="Approve what a job waits for.", epilog=decisions.ID_HELP)
@click.argument("id_", metavar="ID", type=options.TEXT)
@click.option(
    "--comment", type=options.TEXT, default="", metavar="TEXT", help="For the record; an agent that asked reads it."
)
@options.as_json
def command(id_: str, comment: str, as_json: bool) -> int:
    """Approve what a job waits for: it goes on.

    Exits with 1 when it was decided otherwise before.
    """
    return decisions.decide(
        id_,
        Checkpoint.STATE_APPROVED,
        lambda gateway, found: gateway.checkpoints.ApproveCheckpoint(
            ApproveCheckpointRequest(checkpoint_id=found, comment=comment)
        ),
        as_json=as_json,
    )
