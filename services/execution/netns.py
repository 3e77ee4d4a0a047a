"""Sockets that listen inside a sandbox's network namespace, but belong to a process outside it."""

import ctypes
import errno
import fcntl
import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from services.sandbox.errors import SandboxUnavailableError

LOOPBACK = "127.0.0.1"
BACKLOG = 128

_NS_GET_USERNS = 0xB701  # linux/nsfs.h: the user namespace that owns a namespace
_PR_SET_PDEATHSIG = 1
_SIOCGIFFLAGS, _SIOCGIFADDR = 0x8913, 0x8915  # linux/sockios.h
_IFF_UP = 1  # linux/if.h
_LOOPBACK_WITHIN_S = 5.0
_MAX_COMPLAINT = 1024
_MAX_SOCKETS = 8

_libc = ctypes.CDLL(None, use_errno=True)


def sockets_inside(pid: int, make: Callable[[], Sequence[socket.socket]]) -> list[socket.socket]:
    """Return the sockets that `make` makes in the network namespace of `pid`, the init of a sandbox of the same user.

    `make` runs in a process of its own, when the namespace has its loopback; what else it does there, stays. It may
    raise OSError.

    Raises SandboxUnavailableError.
    """
    parent_end, child_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with parent_end, child_end:
        # Entering a user namespace cannot be undone, so a child does it, and hands out the sockets that it makes.
        child = os.fork()
        if child == 0:
            _enter_and_make(pid, make, child_end)
        child_end.close()
        complaint, fds, _, _ = socket.recv_fds(parent_end, _MAX_COMPLAINT, _MAX_SOCKETS)
        os.waitpid(child, 0)
    if not fds:
        raise SandboxUnavailableError(
            f"The sandbox's network cannot be made: {complaint.decode(errors='replace') or 'no reason was given'}",
            "Use network `none`, or run Boatyard as the user who makes the user namespaces",
        )
    return [socket.socket(fileno=fd) for fd in fds]


def listening(address: str, port: int) -> socket.socket:
    """Return a socket that listens for TCP at an address; port 0 is any that is free. Raises OSError."""
    # With the protocol, without which asyncio would not have small pieces sent at once (TCP_NODELAY).
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.bind((address, port))
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def die_with(parent: int) -> None:
    """Have this process killed when `parent`, the process that started it, ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the call above
        os._exit(1)


def _enter_and_make(pid: int, make: Callable[[], Sequence[socket.socket]], answer: socket.socket) -> None:
    """Send the sockets through `answer`, or a complaint. Runs in the child, and never returns."""
    try:
        network = os.open(Path(f"/proc/{pid}/ns/net"), os.O_RDONLY)
        owner = fcntl.ioctl(network, _NS_GET_USERNS)
        if not os.path.sameopenfile(owner, os.open("/proc/self/ns/user", os.O_RDONLY)):  # nobody can enter his own
            _enter(owner)
        _enter(network)
        _await_loopback()
        made = make()
        socket.send_fds(answer, [b"made"], [one.fileno() for one in made])
    except OSError as error:
        answer.send(str(error).encode()[:_MAX_COMPLAINT])
    finally:
        os._exit(0)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _await_loopback() -> None:
    """Wait until the sandbox has set up its loopback, whose address must stay the first: answers come from the first.

    That the address can be bound says nothing: in a namespace without any routes yet, every address can.
    """
    deadline = time.monotonic() + _LOOPBACK_WITHIN_S
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        while not _is_loopback_up(control):
            if time.monotonic() > deadline:
                raise OSError(errno.ETIMEDOUT, "the sandbox's loopback does not come up")
            time.sleep(0.002)


def _is_loopback_up(control: socket.socket) -> bool:
    try:
        fcntl.ioctl(control, _SIOCGIFADDR, struct.pack("40s", b"lo"))
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        return False
    flags = struct.unpack_from("=16xH", fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("40s", b"lo")))[0]
    return bool(flags & _IFF_UP)
