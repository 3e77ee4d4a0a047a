"""Sockets that listen inside of a sandbox's network namespace, and belong to a process outside of it."""

import ctypes
import errno
import fcntl
import os
import signal
import socket
import struct
import time
from collections.abc import Sequence
from pathlib import Path

from services.sandbox.errors import SandboxUnavailableError

_NS_GET_USERNS = 0xB701  # linux/nsfs.h: the user namespace that owns a namespace
_PR_SET_PDEATHSIG = 1
_SIOCSIFADDR = 0x8916  # linux/sockios.h
_LOOPBACK = "127.0.0.1"
_LOOPBACK_WITHIN_S = 5.0
_MAX_COMPLAINT = 1024

_libc = ctypes.CDLL(None, use_errno=True)

Wanted = Sequence[tuple[socket.SocketKind, int]]
"""Kind and port of each socket."""


def listen_inside(pid: int, wanted: Wanted) -> list[socket.socket]:
    """Return sockets on the loopback of `pid`'s network namespace, which one of our user's sandboxes has made.

    Raises SandboxUnavailableError.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        child = os.fork()  # entering a user namespace cannot be undone: somebody else does, and hands out what he made
        if child == 0:
            _enter_and_listen(pid, wanted, theirs)
        theirs.close()
        said, fds, _, _ = socket.recv_fds(ours, _MAX_COMPLAINT, len(wanted))
        os.waitpid(child, 0)
    if len(fds) != len(wanted):
        raise SandboxUnavailableError(
            f"The sandbox's network cannot be entered: {said.decode(errors='replace') or 'no reason was given'}",
            "Use network `none` or `open`, or run Boatyard as the user who makes the user namespaces",
        )
    return [socket.socket(fileno=fd) for fd in fds]


def die_with(parent: int) -> None:
    """End when `parent`, who started us, does."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it has ended before the kernel knew
        os._exit(1)


def _enter_and_listen(pid: int, wanted: Wanted, answer: socket.socket) -> None:
    """In the child: never returns."""
    try:
        network = os.open(Path(f"/proc/{pid}/ns/net"), os.O_RDONLY)
        for namespace in (fcntl.ioctl(network, _NS_GET_USERNS), network):
            _enter(namespace)
        made = [_listening(kind, port) for kind, port in wanted]
        _seem_connected()
        socket.send_fds(answer, [b"made"], [one.fileno() for one in made])
    except OSError as error:
        answer.send(str(error).encode()[:_MAX_COMPLAINT])
    finally:
        os._exit(0)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _seem_connected() -> None:
    """Give the loopback a second address: the C library looks names up for many programs only where there is one."""
    name, second = b"lo:1", bytes((127, 0, 0, 2))
    address = struct.pack("=HH4s8x", socket.AF_INET, 0, second)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFADDR, struct.pack("16s16s8x", name, address))


def _listening(kind: socket.SocketKind, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, kind)
    deadline = time.monotonic() + _LOOPBACK_WITHIN_S
    while True:
        try:
            made.bind((_LOOPBACK, port))
            break
        except OSError as error:
            # The sandbox may not be as far as its loopback.
            if error.errno != errno.EADDRNOTAVAIL or time.monotonic() > deadline:
                raise
            time.sleep(0.002)
    if kind is socket.SOCK_STREAM:
        made.listen(128)
    return made
