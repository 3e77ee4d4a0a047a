"""`boatyard up`."""

import asyncio
import os

import click

from services.cli import options
from services.cli.screen import Screen
from services.common.home import Home
from services.supervisor.plan import DEFAULT_PORT_BASE, GATEWAY, SERVICES, plan
from services.supervisor.up import up


@click.command("up", short_help="Start a cell.")
@click.option(
    "--port-base",
    type=int,
    metavar="N",
    help=f"Listen on ports N (the API) and N+20 (HTTP) instead of {DEFAULT_PORT_BASE} and {DEFAULT_PORT_BASE + 20}.",
)
@click.option(
    "--database-url",
    type=options.TEXT,
    metavar="URL",
    help="Share jobs with other cells: postgresql://user@host/name (default: $BOATYARD_DATABASE_URL, else SQLite).",
)
@options.as_json
def command(port_base: int | None, database_url: str | None, as_json: bool) -> None:
    """Start a cell on this machine and keep it running.

    The four services listen at sockets in $BOATYARD_HOME/run, the gateway at a loopback port too; once all of them
    serve, a line that begins with "ready" says where. A service that dies is restarted. Logs are in
    $BOATYARD_HOME/logs.

    Ctrl-C stops the services and leaves running agents running; the next `boatyard up` continues with them. A second
    Ctrl-C stops the agents too, and so does `boatyard down`.

    Cells with the same --database-url work as one: all take jobs from the same queue, and any of them answers for all.
    Use BOATYARD_DATABASE_URL for a URL with a password: whoever may list processes sees their arguments.
    """
    database = {} if database_url is None else {"BOATYARD_DATABASE_URL": database_url}
    cell = plan(Home.from_environment(), port_base, {**os.environ, **database})

    def announce() -> None:
        addresses = {service: cell.addresses[service] for service in (GATEWAY, *SERVICES)}
        if as_json:
            Screen().json({"kind": "ready", "addresses": addresses, "home": str(cell.home.root)})
        else:
            Screen().value(f"ready: gateway {addresses[GATEWAY]}, and sockets in {cell.home.root / 'run'}")

    asyncio.run(up(cell, announce, options.say))
