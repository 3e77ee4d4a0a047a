"""`boatyard approve`, `reject` and `request-changes`: decisions on a job's checkpoints."""

from collections.abc import Awaitable, Callable
from typing import Any

from boatyard.gateway.v1.checkpoint_pb2 import Checkpoint

from services.cli import exit_codes, shapes
from services.cli.clients import Gateway, with_gateway
from services.cli.lookup import get_checkpoint
from services.cli.screen import Screen

SendDecision = Callable[[Gateway, str], Awaitable[Any]]

WORDS = {
    Checkpoint.STATE_APPROVED: "approved",
    Checkpoint.STATE_REJECTED: "rejected",
    Checkpoint.STATE_EXPIRED: "expired",
    Checkpoint.STATE_CHANGES_REQUESTED: "sent back for changes",
    Checkpoint.STATE_WITHDRAWN: "withdrawn",
}

ID_HELP = (
    "ID is the id of a checkpoint, or of a job: then it means the job's last checkpoint. The first decision counts."
)


def decide(id_: str, decision: "Checkpoint.State.ValueType", send: SendDecision, *, as_json: bool) -> int:
    """Decide with `send`, which takes the checkpoint's id, and print the decision that counts; return the exit code."""
    screen = Screen()

    async def send_decision(gateway: Gateway) -> Any:  # noqa: ANN401 - one of three responses
        checkpoint = await get_checkpoint(gateway, id_)
        return await gateway.ask(send(gateway, checkpoint.checkpoint_id))

    response = with_gateway(send_decision)
    decided = response.checkpoint
    if as_json:
        screen.json(shapes.checkpoint(decided) | {"already_decided": response.already_decided})
    elif response.already_decided:
        by = f" by {decided.decider.name}" if decided.decider.name else ""
        screen.say(f"it was already {WORDS.get(decided.state, 'decided')}{by}", style="yellow")
    else:
        screen.say(f"{WORDS[decision]}: `boatyard show {decided.job_id}` shows how the job continues", style="")
    return exit_codes.SUCCEEDED if decided.state == decision else exit_codes.FAILED
