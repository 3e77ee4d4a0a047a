"""How this gateway's cell presents itself to others."""

import secrets
import socket
from importlib.metadata import version
from pathlib import Path

from services.common.ids import persistent_id
from services.gateway.settings import GatewaySettings
from services.gateway.values.cells import Cell


def this_cell(directory: Path, settings: GatewaySettings) -> Cell:
    """Describe this gateway's cell, whose id is kept in `directory`."""
    host = socket.gethostname()
    return Cell(
        cell_id=persistent_id(directory / "cell-id", "cell"),
        host=host,
        version=version("boatyard"),
        capacity=settings.max_jobs,
        address=settings.advertised_address or _reachable_address(settings, host),
        peer_token=secrets.token_urlsafe(32),
    )


def _reachable_address(settings: GatewaySettings, host: str) -> str:
    """Return the address at which other cells reach this one.

    Without TLS they are on this machine, and call its socket. Otherwise it is `listen`, with the host's name where that
    means every address.
    """
    listen = settings.listen
    if settings.server_tls is None:
        return settings.home.socket("gateway")
    name, _, port = listen.rpartition(":")
    return f"{host}:{port}" if name in {"0.0.0.0", "[::]"} else listen  # noqa: S104 - a comparison: nothing listens there
