"""`boatyard attach`."""

import asyncio
import sys

import click

from services.cli import exit_codes, options
from services.cli.attaching import Keyboard, attached
from services.cli.clients import open_gateway
from services.cli.lookup import execution_id_of
from services.cli.screen import Screen


@click.command("attach", short_help="Type on an agent's terminal.")
@options.job_or_execution
@options.as_json
def command(id_: str, as_json: bool) -> int:
    """Type on the terminal of an agent that was started with `boatyard run --terminal`, and see what it shows.

    All that the terminal has shown so far comes first. Ctrl-] detaches, and the agent runs on; where standard input is
    no terminal, all of it is typed, and its end detaches nobody: what the agent shows is followed to the agent's end.
    """
    if as_json:
        raise click.UsageError("a terminal has no JSON: `boatyard logs --json` has what it shows")
    screen = Screen()

    async def main() -> bool:
        async with open_gateway() as gateway:
            execution_id = await execution_id_of(gateway, id_)
            with Keyboard(sys.stdin.fileno()) as keyboard:
                return await attached(gateway, screen, execution_id, keyboard)

    if not asyncio.run(main()):
        screen.say(f"detached; the agent runs on: `boatyard attach {id_}` comes back")
    return exit_codes.SUCCEEDED
