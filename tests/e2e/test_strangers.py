"""A stranger who sits on ports that a cell uses, or used, hears no secret: the cell's own programs call sockets."""

import contextlib
import os
import socket
import subprocess
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Remote, let_others_in
from tests.kit.cell import BOATYARD, Cell, eventually, listens, running_cell

NODE_SERVICES = ("workspace", "git", "execution")


class Stranger:
    """Listens on loopback ports, takes those that become free, and keeps all that it is sent."""

    def __init__(self) -> None:
        self.heard = b""
        self._listening: list[socket.socket] = []
        self._ended = threading.Event()

    def sit_on(self, port: int) -> None:
        """Listen on a port as soon as it is free; answer with HTTP/2 settings, as a server of gRPC does."""
        taken = threading.Event()

        def sit() -> None:
            while not self._ended.is_set():
                with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)) as listening:
                    self._listening.append(listening)
                    taken.set()
                    self._listen(listening)

        threading.Thread(target=sit, daemon=True).start()
        assert taken.wait(20), f"port {port} does not become free"

    def _listen(self, listening: socket.socket) -> None:
        while not self._ended.is_set():
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=self._hear, args=[connection], daemon=True).start()

    def _hear(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"\0\0\0\4\0\0\0\0\0")
            while part := connection.recv(1 << 16):
                self.heard += part

    def leave(self) -> None:
        self._ended.set()
        for listening in self._listening:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def stranger() -> Iterator[Stranger]:
    someone = Stranger()
    try:
        yield someone
    finally:
        someone.leave()


@pytest.mark.slow
def test_who_sits_on_the_ports_hears_no_secret(scratch: Path, remote: Remote) -> None:
    cell = Cell(scratch / "home")
    with stranger() as early:
        for offset in range(5):
            early.sit_on(cell.base + offset)
        Path(cell.home).mkdir(mode=0o700)
        (cell.home / "token").write_text(f"boatyard_{uuid.uuid4().hex}")
        (cell.home / "token").chmod(0o600)
        cell.boatyard("ps", code=4)
        cell.boatyard("doctor", code=None)
    assert early.heard == b""

    with running_cell(scratch) as cell, stranger() as late:
        for offset in (1, 2, 3, 4):
            late.sit_on(cell.base + offset)  # where earlier versions had the other services
        cell.run(remote.path, "echo new > new.txt")
        for service in NODE_SERVICES:
            cell.await_restart(service, cell.kill_service(service))
        cell.run(remote.path, "echo newer > new.txt")

        cell.kill_service("gateway")
        with contextlib.suppress(AssertionError):  # its successor may have been quicker
            late.sit_on(cell.base)
        for _ in range(5):
            cell.boatyard("ps", code=None)
        late.leave()
        eventually(lambda: listens(cell.address("gateway")), "the gateway listens again")
        eventually(lambda: cell.boatyard("ps", code=None), "it answers again")
        secrets = [(cell.home / name).read_bytes().strip() for name in ("token", "cell-token")]
    assert not any(secret in late.heard or b"authorization" in late.heard for secret in secrets)
    assert late.heard == b""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_reaches_no_socket_however_open_the_data_directory_is(scratch: Path) -> None:
    with running_cell(scratch) as cell:
        let_others_in(scratch)
        cell.home.chmod(0o755)
        for service in ("gateway", *NODE_SERVICES):
            path = str(cell.home / "run" / f"{service}.sock")
            line = f"import socket; socket.socket(socket.AF_UNIX).connect({path!r})"
            tried = subprocess.run(
                ["/usr/bin/python3", "-c", line], user=65534, group=65534, capture_output=True, check=False
            )
            assert b"PermissionError" in tried.stderr
        cell.down()
        (cell.home / "run").chmod(0o777)
        refused = subprocess.run(
            [BOATYARD, "up", "--port-base", str(cell.base)],
            env=cell.environment,
            capture_output=True,
            check=False,
            timeout=60,
        )
        (cell.home / "run").chmod(0o700)
        assert refused.returncode == 1
        assert f"chmod o-w {cell.home}/run".encode() in refused.stderr
