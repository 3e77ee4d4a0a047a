"""`boatyard approve`, `reject` and `request-changes`: decisions on what a job waits for."""

from collections.abc import Awaitable, Callable
from typing import Any

from boatyard.gateway.v1.checkpoint_pb2 import Checkpoint

from services.cli import exit_codes, shapes
from services.cli.clients import Gateway, with_gateway
from services.cli.lookup import get_checkpoint
from services.cli.screen import Screen

Give = Callable[[Gateway, str], Awaitable[Any]]

WORDS = {
    Checkpoint.STATE_APPROVED: "approved",
    Checkpoint.STATE_REJECTED: "rejected",
    Checkpoint.STATE_EXPIRED: "expired",
    Checkpoint.STATE_CHANGES_REQUESTED: "sent back for changes",
    Checkpoint.STATE_WITHDRAWN: "withdrawn",
}

ID_HELP = "ID is a checkpoint's, or a job's: then the last that it asked. The first answer holds."


def decide(id_: str, wanted: "Checkpoint.State.ValueType", give: Give, *, as_json: bool) -> int:
    """Decide by `give`, which gets the checkpoint's id, and print the decision that holds; return the exit code."""
    screen = Screen()

    async def decided_at(gateway: Gateway) -> Any:  # noqa: ANN401 - one of three responses
        checkpoint = await get_checkpoint(gateway, id_)
        return await gateway.ask(give(gateway, checkpoint.checkpoint_id))

    response = with_gateway(decided_at)
    decided = response.checkpoint
    if as_json:
        screen.json(shapes.checkpoint(decided) | {"already_decided": response.already_decided})
    elif response.already_decided:
        by = f" by {decided.decider.name}" if decided.decider.name else ""
        screen.say(f"it was {WORDS.get(decided.state, 'decided')}{by} before", style="yellow")
    else:
        screen.say(f"{WORDS[wanted]}: `boatyard show {decided.job_id}` says how the job goes on", style="")
    return exit_codes.SUCCEEDED if decided.state == wanted else exit_codes.FAILED
