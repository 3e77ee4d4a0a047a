"""`boatyard down`."""

import asyncio
import json

import click

from services.cli import options
from services.common.settings import Home
from services.supervisor.down import down


@click.command("down", short_help="End a cell.")
@options.as_json
def command(as_json: bool) -> None:
    """End the cell of $BOATYARD_HOME, and every agent that runs in it.

    Returns when nothing of it is left, also when `boatyard up` was killed and only agents remain. Jobs that were
    running stay in the books; the next `boatyard up` records what became of them.
    """
    home = Home.from_environment()
    asyncio.run(down(home, options.say))
    if as_json:
        click.echo(json.dumps({"kind": "down", "home": str(home.root)}))
