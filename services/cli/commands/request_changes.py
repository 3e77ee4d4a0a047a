"""`boatyard request-changes`."""

import click
from boatyard.gateway.v1.checkpoint_pb2 import Checkpoint, RequestChangesRequest

from services.cli import decisions, options


@click.command("request-changes", short_help="Ask an agent to change its result.", epilog=decisions.ID_HELP)
@click.argument("id_", metavar="ID", type=options.TEXT)
@click.argument("text", type=options.TEXT)
@options.as_json
def command(id_: str, text: str, as_json: bool) -> int:
    """Have the agent continue in its workspace with TEXT; then the same question is asked about the new result.

    Exits with 1 when another decision was made before.
    """
    return decisions.decide(
        id_,
        Checkpoint.STATE_CHANGES_REQUESTED,
        lambda gateway, checkpoint_id: gateway.checkpoints.RequestChanges(
            RequestChangesRequest(checkpoint_id=checkpoint_id, comment=text)
        ),
        as_json=as_json,
    )
