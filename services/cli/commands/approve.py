"""`boatyard approve`."""

import click
from boatyard.gateway.v1.checkpoint_pb2 import ApproveCheckpointRequest, Checkpoint

from services.cli import decisions, options


@click.command("approve", short_help="Approve a checkpoint.", epilog=decisions.ID_HELP)
@click.argument("id_", metavar="ID", type=options.TEXT)
@click.option(
    "--comment",
    type=options.TEXT,
    default="",
    metavar="TEXT",
    help="A comment for the record; an agent that asked reads it.",
)
@options.as_json
def command(id_: str, comment: str, as_json: bool) -> int:
    """Approve a checkpoint: the job that waits for it continues.

    Exits with 1 when another decision was made before.
    """
    return decisions.decide(
        id_,
        Checkpoint.STATE_APPROVED,
        lambda gateway, checkpoint_id: gateway.checkpoints.ApproveCheckpoint(
            ApproveCheckpointRequest(checkpoint_id=checkpoint_id, comment=comment)
        ),
        as_json=as_json,
    )
