"""`boatyard coordinator`."""

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path

import click

from services.cli import options
from services.common.settings import Home
from services.supervisor.plan import COORDINATOR, DEFAULT_PORT_BASE, plan
from services.supervisor.up import up

_SETTING = "BOATYARD_COORDINATOR_"


@click.command("coordinator", short_help="Carry another gateway's jobs.")
@click.option(
    "--upstream",
    type=options.TEXT,
    required=True,
    metavar="ADDR[,ADDR…]",
    help="The gateway, host:port; of several another is asked when one does not answer.",
)
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where the token stands that the gateway is shown (default: $BOATYARD_TOKEN).",
)
@click.option(
    "--upstream-ca",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="By which the gateway's certificate is known; required for one on another machine.",
)
@click.option("--capacity", type=click.IntRange(1, 1000), metavar="N", help="How many jobs at once (default: 4).")
@click.option(
    "--project",
    "projects",
    type=options.TEXT,
    metavar="ID",
    multiple=True,
    help="Only jobs of this project; may be repeated.",
)
@click.option(
    "--kind", "kinds", type=options.TEXT, metavar="NAME", multiple=True, help="Only jobs of this kind; may be repeated."
)
@click.option(
    "--engine",
    "engines",
    type=options.TEXT,
    metavar="NAME",
    multiple=True,
    help="Only jobs of this engine; may be repeated.",
)
@click.option(
    "--port-base",
    type=int,
    metavar="N",
    help=f"Listen on ports N+1 to N+4 instead of {DEFAULT_PORT_BASE + 1} to {DEFAULT_PORT_BASE + 4}.",
)
@options.as_json
def command(
    *,
    upstream: str,
    token_file: Path | None,
    upstream_ca: Path | None,
    capacity: int | None,
    projects: tuple[str, ...],
    kinds: tuple[str, ...],
    engines: tuple[str, ...],
    port_base: int | None,
    as_json: bool,
) -> None:
    """Carry jobs of a gateway elsewhere on this machine, which needs no access to its database.

    The machine's own three node services and the coordinator listen on loopback ports; one line beginning with "ready"
    says that they serve. A gateway that does not answer is waited for. Logs are in $BOATYARD_HOME/logs.

    The token is one of the gateway's, with the role coordinator; it may be for some projects alone. Ctrl-C leaves
    running agents running, and the next `boatyard coordinator` goes on with them; when another machine has taken their
    jobs over meanwhile, it ends them. `boatyard down` ends all.
    """
    settings = {
        "UPSTREAM": upstream,
        "TOKEN_FILE": "" if token_file is None else str(token_file.absolute()),
        "UPSTREAM_CA": "" if upstream_ca is None else str(upstream_ca.absolute()),
        "CAPACITY": "" if capacity is None else str(capacity),
        "PROJECTS": ",".join(projects),
        "KINDS": ",".join(kinds),
        "ENGINES": ",".join(engines),
    }
    cell = plan(Home.from_environment(), port_base, _told(settings), driver=COORDINATOR)

    def announce() -> None:
        if as_json:
            addresses = {service: cell.addresses[service] for service in cell.services}
            line = {"kind": "ready", "upstream": upstream, "addresses": addresses, "home": str(cell.home.root)}
            click.echo(json.dumps(line))
        else:
            click.echo(f"ready: carrying jobs of {upstream}")

    asyncio.run(up(cell, announce, options.say))


def _told(settings: Mapping[str, str]) -> dict[str, str]:
    """Return our environment with the given settings in it; those that are not given stay as they are."""
    return {**os.environ, **{_SETTING + name: value for name, value in settings.items() if value}}
