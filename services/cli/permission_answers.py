"""`boatyard allow` and `boatyard deny`: answers to what a model asks before it calls a tool."""

import asyncio

import click
from boatyard.execution.v1.event_pb2 import PermissionAnswer
from boatyard.gateway.v1 import runtime_pb2

from services.cli import options, shapes
from services.cli.clients import open_gateway
from services.cli.job_request import execution_id_of
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
        screen = Screen()

        async def main() -> PermissionAnswer:
            async with open_gateway() as gateway:
                request = runtime_pb2.ResolvePermissionRequest(
                    execution_id=await execution_id_of(gateway, id_),
                    permission_id=permission,
                    allow=allow,
                    reason=reason,
                )
                return (await gateway.ask(gateway.runtime.ResolvePermission(request))).answer

        answer = asyncio.run(main())
        if as_json:
            screen.json(shapes.line(shapes.permission_answer(answer)))
        else:
            said = "allowed" if answer.allowed else "denied"
            screen.say(said if answer.allowed is allow else f"somebody was faster: it was {said}", style="")

    return command
