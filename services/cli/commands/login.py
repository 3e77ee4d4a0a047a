"""`boatyard login`."""

import asyncio
import os
import ssl
import sys
import tempfile
from pathlib import Path

import click
from boatyard.gateway.v1 import job_pb2

from services.cli import options
from services.cli.clients import gateway_at
from services.cli.connection import Connection
from services.cli.exit_codes import NotAllowedError
from services.cli.logins import Logins
from services.cli.screen import Screen
from services.common.addresses import is_host_and_port
from services.common.errors import PermissionDenied, StartError
from services.common.home import read_token, token_from
from services.common.rpc.tls import PINNED_NAME, ClientTls, fingerprint

_SECONDS = 10.0


@click.command("login", short_help="Log in at somebody else's gateway.")
@click.argument("address", metavar="HOST:PORT", type=options.TEXT)
@click.option(
    "--fingerprint",
    "expected",
    type=options.TEXT,
    metavar="SHA256",
    help="The fingerprint of the gateway's certificate (default: it is shown, and you are asked).",
)
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The file with your token (default: $BOATYARD_TOKEN, or else you are asked).",
)
@click.option("--forget", is_flag=True, help="Remove the login at this gateway.")
@options.as_json
def command(address: str, expected: str | None, token_file: Path | None, *, forget: bool, as_json: bool) -> None:
    """Log in at a gateway that another user runs, here or on another machine, with a token of theirs.

    The gateway's certificate is pinned: from then on the token is sent to whoever has its key, and to nobody else.
    Whoever runs the cell with `boatyard up --tls` sees the certificate's fingerprint in the line that begins with
    "ready"; compare it, or give it as --fingerprint.

    Commands then use this gateway, unless BOATYARD_HOME has a cell of your own; BOATYARD_GATEWAY_ADDRESS chooses one of
    several.
    """
    if forget:
        if not Logins.of_user().forget(address):
            raise click.UsageError(f"there is no login at {address}")
        options.say(f"forgot {address}")
        return
    certificate = _certificate(address)
    shown = fingerprint(certificate)
    _compare(address, shown, expected)
    token = _token(token_file)
    asyncio.run(_try(address, certificate, token))
    Logins.of_user().keep(address, certificate, token)
    if as_json:
        Screen().json({"kind": "login", "address": address, "fingerprint": shown})
    else:
        options.say(f"logged in at {address}")


def _certificate(address: str) -> str:
    """Return the certificate of whoever listens there, in PEM. It proves nothing yet."""
    if not is_host_and_port(address):
        raise click.UsageError(f"the gateway must be host:port, such as 127.0.0.1:7460, not {address!r}")
    host, _, port = address.rpartition(":")
    try:
        return ssl.get_server_certificate((host.strip("[]"), int(port)), timeout=_SECONDS)
    except ssl.SSLError:
        raise NotAllowedError(
            f"{address} does not speak TLS: `boatyard up --tls` gives its cell a certificate"
        ) from None
    except OSError as error:
        raise NotAllowedError(f"cannot reach {address}: {error.strerror or error}") from None


def _compare(address: str, shown: str, expected: str | None) -> None:
    """Have a certificate's fingerprint compared. Raises NotAllowedError when it is another one."""
    if expected is not None:
        if expected.replace(":", "").upper() != shown.replace(":", ""):
            raise NotAllowedError(f"the certificate at {address} has another fingerprint, {shown}")
        return
    if not sys.stdin.isatty():
        raise click.UsageError(
            f"--fingerprint is required without a terminal; the certificate at {address} has {shown}"
        )
    options.say(f"the certificate at {address} has the SHA-256 fingerprint {shown}")
    if not click.confirm("Is it the one that `boatyard up --tls` shows where the cell runs?", err=True):
        raise NotAllowedError("nothing was sent there")


def _token(file: Path | None) -> str:
    try:
        given = os.environ.get("BOATYARD_TOKEN", "")
        if token := token_from(given, "BOATYARD_TOKEN") if file is None else read_token(file):
            return token
        if not sys.stdin.isatty():
            raise click.UsageError("a token is required: --token-file, or BOATYARD_TOKEN")
        return token_from(str(click.prompt("Token", hide_input=True, err=True)), "what was typed")
    except StartError as error:
        raise NotAllowedError(str(error)) from None


async def _try(address: str, certificate: str, token: str) -> None:
    """Make a call. Raises ServiceError when the gateway refuses the token."""
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(certificate)
        file.flush()
        tls = ClientTls(Path(file.name), server_name=PINNED_NAME)
        async with gateway_at(Connection(address, token, tls)) as gateway:
            try:
                await gateway.ask(gateway.jobs.ListJobs(job_pb2.ListJobsRequest(page_size=1)))
            except PermissionDenied:  # of a role or a project: the token itself is known
                return
