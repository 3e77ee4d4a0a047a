"""`boatyard down`."""

import asyncio

import click

from services.cli import options
from services.cli.screen import Screen
from services.common.home import Home
from services.supervisor.down import down


@click.command("down", short_help="Stop a cell and its agents.")
@options.as_json
def command(as_json: bool) -> None:
    """Stop the cell of $BOATYARD_HOME and every agent that runs in it.

    Returns when no process of the cell is left, even if `boatyard up` was killed and only agents remained. Jobs that
    were running stay recorded; the next `boatyard up` records what became of them.
    """
    home = Home.from_environment()
    asyncio.run(down(home, options.say))
    if as_json:
        Screen().json({"kind": "down", "home": str(home.root)})
