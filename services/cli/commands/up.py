"""`boatyard up`."""

import asyncio
import os
from collections.abc import Collection
from pathlib import Path

import click

from services.cli import options
from services.cli.screen import Screen
from services.common.home import Home, absolute
from services.common.rpc.tls import PINNED_NAME
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
@click.option(
    "--keys-file",
    type=options.TEXT,
    metavar="FILE",
    help="The keys of that database: a copy of $BOATYARD_HOME/keys of a cell on it. Later starts need none.",
)
@click.option(
    "--tls", "has_tls", is_flag=True, help="Speak TLS at the gateway's ports, with a certificate of the cell's own."
)
@options.as_json
def command(
    port_base: int | None, database_url: str | None, keys_file: str | None, *, has_tls: bool, as_json: bool
) -> None:
    """Start a cell on this machine and keep it running.

    The four services listen at sockets in $BOATYARD_HOME/run, the gateway at a loopback port too; once all of them
    serve, a line that begins with "ready" says where. A service that dies is restarted. Logs are in
    $BOATYARD_HOME/logs.

    Ctrl-C stops the services and leaves running agents running; the next `boatyard up` continues with them. A second
    Ctrl-C stops the agents too, and so does `boatyard down`.

    Cells with the same --database-url work as one: all take jobs from the same queue, and any of them answers for all.
    Secrets in the database are encrypted: every further cell is given the first one's keys by --keys-file.

    Use BOATYARD_DATABASE_URL for a URL with a password: whoever may list processes sees their arguments.

    With --tls, other users log in at the gateway's port with `boatyard login`, and compare the fingerprint that is
    shown here. The certificate is made once, in $BOATYARD_HOME/tls. Cells that share a database call one another, and
    need certificates of one CA instead (BOATYARD_GATEWAY_TLS_CERTIFICATE).
    """
    home = Home.from_environment()
    database = {} if database_url is None else {"BOATYARD_DATABASE_URL": database_url}
    if keys_file is not None:
        database["BOATYARD_GATEWAY_KEYS_FILE"] = str(absolute(Path(keys_file)))
    settings, fingerprint = _own_certificate(home) if has_tls else ({}, None)
    cell = plan(home, port_base, {**os.environ, **database, **settings})

    def announce(without_ports: Collection[str]) -> None:
        addresses = {service: cell.addresses[service] for service in (GATEWAY, *SERVICES)}
        if GATEWAY in without_ports:
            addresses[GATEWAY] = cell.called_at(GATEWAY)
        if as_json:
            told = {} if fingerprint is None else {"fingerprint": fingerprint}
            Screen().json({"kind": "ready", "addresses": addresses, "home": str(home.root), **told})
        else:
            by = "" if fingerprint is None else f" with the certificate {fingerprint}"
            Screen().value(f"ready: gateway {addresses[GATEWAY]}{by}, and sockets in {home.root / 'run'}")

    asyncio.run(up(cell, announce, options.say))


def _own_certificate(home: Home) -> tuple[dict[str, str], str]:
    """Return the settings by which a gateway has the cell's own certificate, and its fingerprint."""
    from services.common.rpc.own_certificate import own_certificate  # noqa: PLC0415 - its library takes long to load

    if os.environ.get("BOATYARD_GATEWAY_TLS_CERTIFICATE"):
        raise click.UsageError(
            "--tls makes a certificate, and BOATYARD_GATEWAY_TLS_CERTIFICATE names one: leave one out"
        )
    own = own_certificate(home)
    settings = {
        "BOATYARD_GATEWAY_TLS_CERTIFICATE": str(own.certificate),
        "BOATYARD_GATEWAY_TLS_KEY": str(own.key),
        "BOATYARD_GATEWAY_CA": str(own.certificate),
        "BOATYARD_GATEWAY_SERVER_NAME": PINNED_NAME,
    }
    return settings, own.fingerprint
