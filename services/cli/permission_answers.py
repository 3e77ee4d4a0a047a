"""`boatyard allow` and `boatyard deny`: answers to what a model asks before it calls a tool."""

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
        help=f"""{name.capitalize()} what a model asks: `boatyard logs` shows PERMISSION, an id, with the question.

        The first answer holds: of one that comes later you are told what the first one was.""",
        short_help=f"{name.capitalize()} what a model asks.",
    )
    @options.job_or_execution
    @click.argument("permission", type=options.TEXT)
    @click.option("--reason", type=options.TEXT, default="", metavar="TEXT", help="Why; a model that may not is told.")
    @options.as_json
    def command(id_: str, permission: str, reason: str, as_json: bool) -> None:
        async def resolved(gateway: Gateway) -> PermissionAnswer:
            request = runtime_pb2.ResolvePermissionRequest(
                execution_id=await execution_id_of(gateway, id_), permission_id=permission, allow=allow, reason=reason
            )
            return (await gateway.ask(gateway.runtime.ResolvePermission(request))).answer

        answer = with_gateway(resolved)
        said = "allowed" if answer.allowed else "denied"
        text = said if answer.allowed is allow else f"somebody was faster: it was {said}"
        Screen().answer(shapes.permission_answer(answer), text, as_json=as_json)

    return command
