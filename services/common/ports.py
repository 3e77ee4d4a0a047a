"""Ports of this machine, which belong to whoever listens there first."""

import errno
import socket
from typing import Final

AGAIN_SECONDS: Final = 2.0
"""How often to look whether a port that another program has is free."""


def is_taken(address: str) -> bool:
    """Return True when another program listens at host:port. Of anything else that is wrong with it, False."""
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections do not count
        try:
            probe.bind((host.strip("[]"), int(port)))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False
