"""`boatyard coordinator`."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import click

from services.cli import options
from services.cli.connection import is_insecure
from services.cli.logins import Logins
from services.cli.screen import Screen
from services.common.home import Home
from services.supervisor.plan import COORDINATOR, plan
from services.supervisor.up import up

_SETTING = "BOATYARD_COORDINATOR_"


@click.command("coordinator", short_help="Run a remote gateway's jobs on this machine.")
@click.option(
    "--upstream",
    type=options.TEXT,
    required=True,
    metavar="ADDR[,ADDR…]",
    help="The gateway, host:port or unix:PATH; of several, the next is used when one does not answer.",
)
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The file with the token for the gateway (default: $BOATYARD_TOKEN, or that of `boatyard login`).",
)
@click.option(
    "--upstream-ca",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The CA of the gateway's certificate (default: the certificate that `boatyard login` has pinned).",
)
@click.option(
    "--id",
    "own_id",
    type=options.TEXT,
    metavar="ID",
    help="Its id, for which its token is valid (default: one is made, and kept in $BOATYARD_HOME).",
)
@click.option("--capacity", type=click.IntRange(1, 1000), metavar="N", help="Run at most N jobs at once (default: 4).")
@click.option(
    "--project",
    "projects",
    type=options.TEXT,
    metavar="ID",
    multiple=True,
    help="Run only jobs of this project; may be repeated.",
)
@click.option(
    "--kind",
    "kinds",
    type=options.TEXT,
    metavar="NAME",
    multiple=True,
    help="Run only jobs of this kind; may be repeated.",
)
@click.option(
    "--engine",
    "engines",
    type=options.TEXT,
    metavar="NAME",
    multiple=True,
    help="Run only jobs of this engine; may be repeated.",
)
@click.option("--port-base", type=int, hidden=True)  # of earlier versions, whose services had ports
@options.as_json
def command(
    *,
    upstream: str,
    token_file: Path | None,
    upstream_ca: Path | None,
    own_id: str | None,
    capacity: int | None,
    projects: tuple[str, ...],
    kinds: tuple[str, ...],
    engines: tuple[str, ...],
    port_base: int | None,  # noqa: ARG001 - see above
    as_json: bool,
) -> None:
    """Run a remote gateway's jobs on this machine, without access to the gateway's database.

    The workspace, git and execution services of this machine and the coordinator listen at sockets in
    $BOATYARD_HOME/run; a line that begins with "ready" says that they serve. If the gateway does not answer, the
    coordinator waits for it. Logs are in $BOATYARD_HOME/logs.

    The token is one of the gateway's, with the role coordinator; it may be limited to some projects. Ctrl-C leaves
    running agents running, and the next `boatyard coordinator` continues with them; it stops those whose jobs another
    machine has taken over meanwhile. `boatyard down` stops everything.
    """
    settings = {
        **({} if upstream_ca else _of_login(upstream)),
        "UPSTREAM_INSECURE": "1" if is_insecure() else "",
        "UPSTREAM": upstream,
        **({} if token_file is None else {"TOKEN_FILE": str(token_file.absolute())}),
        **({} if upstream_ca is None else {"UPSTREAM_CA": str(upstream_ca.absolute())}),
        "ID": own_id or "",
        "CAPACITY": "" if capacity is None else str(capacity),
        "PROJECTS": ",".join(projects),
        "KINDS": ",".join(kinds),
        "ENGINES": ",".join(engines),
    }
    cell = plan(Home.from_environment(), None, _environment_with(settings), driver=COORDINATOR)

    def announce(_: object) -> None:
        if as_json:
            addresses = {service: cell.addresses[service] for service in cell.services}
            home = str(cell.home.root)
            Screen().json({"kind": "ready", "upstream": upstream, "addresses": addresses, "home": home})
        else:
            Screen().value(f"ready: carrying jobs of {upstream}")

    asyncio.run(up(cell, announce, options.say))


def _of_login(upstream: str) -> dict[str, str]:
    """Return the settings by which a gateway is called at which the user has logged in; none for another one."""
    login = Logins.of_user().find(upstream)
    if login is None or os.environ.get(f"{_SETTING}UPSTREAM_CA"):
        return {}
    has_token = os.environ.get("BOATYARD_TOKEN") or os.environ.get(f"{_SETTING}TOKEN_FILE")
    own_token = {} if has_token else {"TOKEN_FILE": str(login.token_file)}
    return {"UPSTREAM_CA": str(login.tls.ca), "UPSTREAM_SERVER_NAME": login.tls.server_name, **own_token}


def _environment_with(settings: Mapping[str, str]) -> dict[str, str]:
    """Return our environment with the non-empty ones of these settings added."""
    return {**os.environ, **{_SETTING + name: value for name, value in settings.items() if value}}
