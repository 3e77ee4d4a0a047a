"""Sockets that listen inside a sandbox's network namespace, but belong to a process outside it."""

import ctypes
import errno
import fcntl
import os
import signal
import socket
import struct
import time
from pathlib import Path

from services.execution.egress.capture import CaptureUnavailableError, capture
from services.sandbox.errors import SandboxUnavailableError

_NS_GET_USERNS = 0xB701  # linux/nsfs.h: the user namespace that owns a namespace
_PR_SET_PDEATHSIG = 1
_IP_TRANSPARENT = 19  # linux/in.h
_SIOCGIFFLAGS, _SIOCGIFADDR, _SIOCSIFADDR = 0x8913, 0x8915, 0x8916  # linux/sockios.h
_IFF_UP = 1  # linux/if.h
_LOOPBACK = "127.0.0.1"
_ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - in a namespace that nobody else reaches
_NAMES_PORT = 53
_BACKLOG = 128
_LOOPBACK_WITHIN_S = 5.0
_MAX_COMPLAINT = 1024

_libc = ctypes.CDLL(None, use_errno=True)


def listen_inside(pid: int, proxy_port: int, *, must_capture: bool) -> tuple[socket.socket, socket.socket]:
    """Listen in the network namespace of `pid`, the init of a sandbox of the same user.

    Returns a socket to which all TCP comes, and one for questions about names. Where the kernel cannot bring all TCP
    here, the first is for programs that know the proxy; or, if it `must_capture`, nothing is returned.

    Raises SandboxUnavailableError.
    """
    parent_end, child_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with parent_end, child_end:
        # Entering a user namespace cannot be undone, so a child does it, and hands out the sockets that it makes.
        child = os.fork()
        if child == 0:
            _enter_and_listen(pid, proxy_port, child_end, must_capture=must_capture)
        child_end.close()
        complaint, fds, _, _ = socket.recv_fds(parent_end, _MAX_COMPLAINT, 2)
        os.waitpid(child, 0)
    if len(fds) != 2:
        raise SandboxUnavailableError(
            f"The sandbox's network cannot be made: {complaint.decode(errors='replace') or 'no reason was given'}",
            "Use network `none`, or run Boatyard as the user who makes the user namespaces",
        )
    proxy, names = (socket.socket(fileno=fd) for fd in fds)
    return proxy, names


def die_with(parent: int) -> None:
    """Have this process killed when `parent`, the process that started it, ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the call above
        os._exit(1)


def _enter_and_listen(pid: int, proxy_port: int, answer: socket.socket, *, must_capture: bool) -> None:
    """Send the sockets through `answer`, or a complaint. Runs in the child, and never returns."""
    try:
        network = os.open(Path(f"/proc/{pid}/ns/net"), os.O_RDONLY)
        owner = fcntl.ioctl(network, _NS_GET_USERNS)
        if not os.path.sameopenfile(owner, os.open("/proc/self/ns/user", os.O_RDONLY)):  # nobody can enter his own
            _enter(owner)
        _enter(network)
        _await_loopback()
        proxy = _listening_socket(socket.SOCK_STREAM, _LOOPBACK, proxy_port)
        # A server with any address answers from the one that it was asked at, so programs may ask any name server.
        names = _listening_socket(socket.SOCK_DGRAM, _ANY_ADDRESS, _NAMES_PORT)
        _add_loopback_address()
        _capture(proxy, proxy_port, must=must_capture)
        socket.send_fds(answer, [b"made"], [proxy.fileno(), names.fileno()])
    except (OSError, CaptureUnavailableError) as error:
        answer.send(str(error).encode()[:_MAX_COMPLAINT])
    finally:
        os._exit(0)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _capture(proxy: socket.socket, port: int, *, must: bool) -> None:
    try:
        proxy.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
        capture(port)
    except CaptureUnavailableError:
        if must:
            raise


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


def _add_loopback_address() -> None:
    """Give the loopback a second address: for many programs, the C library looks up names only if there is one."""
    name, second = b"lo:1", bytes((127, 0, 0, 2))
    address = struct.pack("=HH4s8x", socket.AF_INET, 0, second)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFADDR, struct.pack("16s16s8x", name, address))


def _listening_socket(kind: socket.SocketKind, address: str, port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, kind)
    listening.bind((address, port))
    if kind is socket.SOCK_STREAM:
        listening.listen(_BACKLOG)
    return listening
