"""`boatyard reject`."""

import click
from boatyard.gateway.v1.checkpoint_pb2 import Checkpoint, RejectCheckpointRequest

from services.cli import decisions, options


@click.command("reject", short_help="Reject what a job waits for.", epilog=decisions.ID_HELP)
@click.argument("id_", metavar="ID", type=options.TEXT)
@click.option("--reason", type=options.TEXT, required=True, metavar="TEXT", help="Why: the job's message says it.")
@options.as_json
def command(id_: str, reason: str, as_json: bool) -> int:
    """Reject what a job waits for: it fails, and what its agent did is kept as a snapshot.

    Exits with 1 when it was decided otherwise before.
    """
    return decisions.decide(
        id_,
        Checkpoint.STATE_REJECTED,
        lambda gateway, found: gateway.checkpoints.RejectCheckpoint(
            RejectCheckpointRequest(checkpoint_id=found, reason=reason)
        ),
        as_json=as_json,
    )
