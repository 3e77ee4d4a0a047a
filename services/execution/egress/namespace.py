"""The proxy's sockets inside a sandbox's network namespace, to which the namespace brings what programs send."""

import fcntl
import socket
import struct
from collections.abc import Sequence
from functools import partial

from services.execution.egress.capture import CaptureUnavailableError, capture
from services.execution.netns import LOOPBACK, listening, sockets_inside

_IP_TRANSPARENT = 19  # linux/in.h
_SIOCSIFADDR = 0x8916  # linux/sockios.h
_ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - in a namespace that nobody else reaches
_NAMES_PORT = 53


def listen_inside(pid: int, proxy_port: int, *, must_capture: bool) -> tuple[socket.socket, socket.socket]:
    """Listen in the network namespace of `pid`, the init of a sandbox of the same user.

    Returns a socket to which all TCP comes, and one for questions about names. Where the kernel cannot bring all TCP
    here, the first is for programs that know the proxy; or, if it `must_capture`, nothing is returned.

    Raises SandboxUnavailableError.
    """
    proxy, names = sockets_inside(pid, partial(_listen, proxy_port, must_capture=must_capture))
    return proxy, names


def _listen(proxy_port: int, *, must_capture: bool) -> Sequence[socket.socket]:
    proxy = listening(LOOPBACK, proxy_port)
    names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    # A server with any address answers from the one that it was asked at, so programs may ask any name server.
    names.bind((_ANY_ADDRESS, _NAMES_PORT))
    _add_loopback_address()
    _capture(proxy, proxy_port, must=must_capture)
    return proxy, names


def _capture(proxy: socket.socket, port: int, *, must: bool) -> None:
    try:
        proxy.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
        capture(port)
    except CaptureUnavailableError as error:
        if must:
            raise OSError(str(error)) from error


def _add_loopback_address() -> None:
    """Give the loopback a second address: for many programs, the C library looks up names only if there is one."""
    name, second = b"lo:1", bytes((127, 0, 0, 2))
    address = struct.pack("=HH4s8x", socket.AF_INET, 0, second)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFADDR, struct.pack("16s16s8x", name, address))
