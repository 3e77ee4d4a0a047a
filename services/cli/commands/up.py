"""`boatyard up`."""

import asyncio
import os
from pathlib import Path

import click

from services.cli import options
from services.cli.screen import Screen
from services.common.home import Home, absolute
from services.supervisor.plan import DEFAULT_PORT_BASE, GATEWAY, SERVICES, plan
from services.supervisor.up import up


@click.command("up", short_help="Start a cell.")
@click.option(
    "--port-base",
    type=int,
    metavar="N",
    help="Listen on ports N (gateway) to N+3, and N+20 (HTTP),"
    f" instead of {DEFAULT_PORT_BASE} to {DEFAULT_PORT_BASE + 3}, and {DEFAULT_PORT_BASE + 20}.",
)
@click.option(
    "--database-url",
    type=options.TEXT,
    metavar="URL",
    help="Share jobs with other cells: postgresql://user@host/name (default: $BOATYARD_DATABASE_URL, else SQLite).",
)
@click.option(
    "--keys-file",
    type=options.TEXT,
    metavar="FILE",
    help="The keys of that database: a copy of $BOATYARD_HOME/keys of a cell on it. Needed at the first start.",
)
@options.as_json
def command(port_base: int | None, database_url: str | None, keys_file: str | None, as_json: bool) -> None:
    """Start a cell on this machine and keep it running.

    The four services listen on loopback ports; once all of them serve, a line that begins with "ready" says where. A
    service that dies is restarted. Logs are in $BOATYARD_HOME/logs.

    Ctrl-C stops the services and leaves running agents running; the next `boatyard up` continues with them. A second
    Ctrl-C stops the agents too, and so does `boatyard down`.

    Cells with the same --database-url work as one: all take jobs from the same queue, and any of them answers for all.
    Secrets in the database are encrypted: every further cell is given the first one's keys by --keys-file.

    Use BOATYARD_DATABASE_URL for a URL with a password: whoever may list processes sees their arguments.
    """
    database = {} if database_url is None else {"BOATYARD_DATABASE_URL": database_url}
    if keys_file is not None:
        database["BOATYARD_GATEWAY_KEYS_FILE"] = str(absolute(Path(keys_file)))
    cell = plan(Home.from_environment(), port_base, {**os.environ, **database})

    def announce() -> None:
        addresses = {service: cell.addresses[service] for service in (GATEWAY, *SERVICES)}
        if as_json:
            Screen().json({"kind": "ready", "addresses": addresses, "home": str(cell.home.root)})
        else:
            Screen().value("ready: " + ", ".join(f"{service} {address}" for service, address in addresses.items()))

    asyncio.run(up(cell, announce, options.say))
