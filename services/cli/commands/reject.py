"""`boatyard reject`."""

import click
from boatyard.gateway.v1.checkpoint_pb2 import Checkpoint, RejectCheckpointRequest

from services.cli import decisions, options


@click.command("reject", short_help="Reject a checkpoint.", epilog=decisions.ID_HELP)
@click.argument("id_", metavar="ID", type=options.TEXT)
@click.option("--reason", type=options.TEXT, required=True, metavar="TEXT", help="Why; becomes the job's message.")
@options.as_json
def command(id_: str, reason: str, as_json: bool) -> int:
    """Reject a checkpoint: the job fails, and what its agent did is kept as a snapshot.

    Exits with 1 when another decision was made before.
    """
    return decisions.decide(
        id_,
        Checkpoint.STATE_REJECTED,
        lambda gateway, checkpoint_id: gateway.checkpoints.RejectCheckpoint(
            RejectCheckpointRequest(checkpoint_id=checkpoint_id, reason=reason)
        ),
        as_json=as_json,
    )
