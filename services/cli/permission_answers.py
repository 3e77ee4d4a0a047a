"""`boatyard allow` and `boatyard deny`: answers to a model that asks for permission to call a tool."""

import click
from boatyard.execution.v1.event_pb2 import PermissionAnswer
from boatyard.gateway.v1 import runtime_pb2

from services.cli import options, shapes
from services.cli.clients import Gateway, with_gateway
from services.cli.lookup import execution_id_of
from services.cli.screen import Screen


def answer_command(name: str, *, allow: bool) -> click.Command:
    """Make the command that gives one of the two answers."""

    @click.command(
        name,
        help=f"""{name.capitalize()} a tool call of a model that asks for permission.

        `boatyard logs` shows PERMISSION, an id, with the request. The first answer counts; whoever answers later is
        told what it was.""",
        short_help=f"{name.capitalize()} a tool call of a model.",
    )
    @options.job_or_execution
    @click.argument("permission", type=options.TEXT)
    @click.option(
        "--reason",
        type=options.TEXT,
        default="",
        metavar="TEXT",
        help="Why; a model whose call is denied gets this text.",
    )
    @options.as_json
    def command(id_: str, permission: str, reason: str, as_json: bool) -> None:
        async def resolve(gateway: Gateway) -> PermissionAnswer:
            request = runtime_pb2.ResolvePermissionRequest(
                execution_id=await execution_id_of(gateway, id_), permission_id=permission, allow=allow, reason=reason
            )
            return (await gateway.ask(gateway.runtime.ResolvePermission(request))).answer

        answer = with_gateway(resolve)
        decision = "allowed" if answer.allowed else "denied"
        text = decision if answer.allowed is allow else f"it was already {decision}"
        Screen().answer(shapes.permission_answer(answer), text, as_json=as_json)

    return command
