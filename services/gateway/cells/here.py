"""This gateway, as others know it."""

import secrets
import socket
from importlib.metadata import version
from pathlib import Path

from services.common.ids import persistent_id
from services.gateway.cells.model import Cell
from services.gateway.settings import GatewaySettings


def this_cell(directory: Path, settings: GatewaySettings) -> Cell:
    """Describe this gateway's cell, whose id is kept in `directory`."""
    host = socket.gethostname()
    return Cell(
        cell_id=persistent_id(directory / "cell-id", "cell"),
        host=host,
        version=version("boatyard"),
        capacity=settings.max_jobs,
        address=settings.advertised_address or _reachable(settings.listen, host),
        peer_token=secrets.token_urlsafe(32),
    )


def _reachable(listen: str, host: str) -> str:
    """Return where others reach what listens at `listen`: by the host's name where that is every address."""
    name, _, port = listen.rpartition(":")
    return f"{host}:{port}" if name in {"0.0.0.0", "[::]"} else listen  # noqa: S104 - nothing listens here
