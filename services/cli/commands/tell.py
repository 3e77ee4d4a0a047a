"""`boatyard tell`."""

import uuid

import click
from boatyard.gateway.v1 import runtime_pb2

from services.cli import options
from services.cli.clients import Gateway, with_gateway
from services.cli.lookup import execution_id_of
from services.cli.screen import Screen


@click.command("tell", short_help="Send a message to a model.")
@options.job_or_execution
@click.argument("text", type=options.TEXT)
@options.as_json
def command(id_: str, text: str, as_json: bool) -> None:
    """Send TEXT to a model while it works; it reads it before its next answer. A command takes no messages."""

    async def send(gateway: Gateway) -> None:
        request = runtime_pb2.SendMessageRequest(
            execution_id=await execution_id_of(gateway, id_), message_id=uuid.uuid4().hex, text=text
        )
        await gateway.ask(gateway.runtime.SendMessage(request))

    with_gateway(send)
    if not as_json:
        Screen().say("sent; the model reads it before its next answer", style="")
