"""`boatyard request-changes`."""

import click
from boatyard.gateway.v1.checkpoint_pb2 import Checkpoint, RequestChangesRequest

from services.cli import decisions, options


@click.command("request-changes", short_help="Have an agent change its result.", epilog=decisions.ID_HELP)
@click.argument("id_", metavar="ID", type=options.TEXT)
@click.argument("text", type=options.TEXT)
@options.as_json
def command(id_: str, text: str, as_json: bool) -> int:
    """Have the agent go on in its workspace with TEXT, before its result is asked about again.

    Exits with 1 when it was decided otherwise before.
    """
    return decisions.decide(
        id_,
        Checkpoint.STATE_CHANGES_REQUESTED,
        lambda gateway, found: gateway.checkpoints.RequestChanges(
            RequestChangesRequest(checkpoint_id=found, comment=text)
        ),
        as_json=as_json,
    )
