"""A git server over HTTP on this machine, by git's own `http-backend`, that requires a token.

At each request it records the command lines of all processes, because everybody can read what is in argv.
"""

import base64
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

from tests.kit.certificates import Files
from tests.kit.lfs import MEDIA_TYPE, LfsServer


@dataclass
class Fault:
    """What a server does in place of an answer, at requests whose method and path hold `at`.

    The first `after` of them are answered, and then it does so a number of `times`. `does` is a status, `page`, or a
    URL to which it sends the client with status `code` (`{path}` is the request's); `retry_after` is a header of the
    answer, in seconds. Or it closes the connection: `drop` (without a word), `headers` (after them), `cut` (in the
    middle of its answer), `break` (in the middle of what it is sent), `lose` (when it has done what it was asked to).
    Or it falls silent, and waits for the client to go: `hang` (without a word), `stall` (in the middle of its answer).
    Or it is slow: `drip`.
    """

    at: str
    does: int | str
    times: int = 1_000_000
    after: int = 0
    code: int = 302
    retry_after: int = 0


_NOTHING: Final = Fault("", "")
_DRIP_SECONDS: Final = 0.4
_BY_CONTENT: Final = ("headers", "cut", "lose", "stall", "drip")


class GitServer:
    """Serves the bare repositories under `root` at `url(name)`, to callers with `token`.

    `holders` are the programs that had the token in their environment.
    """

    def __init__(self, root: Path, token: str) -> None:
        self.root = root
        self.token = token
        self.requests: list[str] = []
        self.command_lines = b""
        self.holders: set[str] = set()
        self.asked = threading.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()
        # Requests with this method, or all if it is empty, wait until the server may answer.
        self.held_method = ""
        self.port = 0
        self.scheme = "http"
        self.faults: list[Fault] = []
        self.lfs: LfsServer | None = None
        self.records_processes = True

    def url(self, name: str) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/{name}"

    @property
    def secrets(self) -> tuple[bytes, bytes]:
        """The token as it is, and as it is sent."""
        return self.token.encode(), base64.b64encode(f"x-access-token:{self.token}".encode())

    def admits(self, header: str | None) -> bool:
        encoded = base64.b64encode(f"x-access-token:{self.token}".encode()).decode()
        return header == f"Basic {encoded}"

    def record_processes(self, path: str) -> None:
        self.requests.append(path)
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    self.command_lines += (entry / "cmdline").read_bytes()
                    if any(secret in (entry / "environ").read_bytes() for secret in self.secrets):
                        self.holders.add((entry / "comm").read_text().strip())
                except OSError:
                    continue


@contextmanager
def git_server(root: Path, token: str, certificate: Files | None = None) -> Iterator[GitServer]:
    """Serve inside of the block; with a certificate, over https."""
    server = GitServer(root, token)

    class Handler(_Handler):
        git_server = server

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = False
    if certificate is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate.certificate, certificate.key)
        httpd.socket = tls.wrap_socket(httpd.socket, server_side=True)
        server.scheme = "https"
    server.port = httpd.server_address[1]
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.may_answer.set()
        httpd.shutdown()
        httpd.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    git_server: GitServer

    def do_GET(self) -> None:
        self._serve(b"", self._fault())

    def do_PUT(self) -> None:
        self._serve(self.rfile.read(int(self.headers["Content-Length"])), self._fault())

    def do_POST(self) -> None:
        fault = self._fault()
        if fault.does == "break":
            self.rfile.read1(1)
            self._hang_up()
        elif self.headers.get("Transfer-Encoding") == "chunked":
            self._serve(b"".join(iter(self._chunk, b"")), fault)
        else:
            self._serve(self.rfile.read(int(self.headers["Content-Length"])), fault)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""

    def _chunk(self) -> bytes:
        data = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return data

    def _serve(self, body: bytes, fault: Fault) -> None:
        server = self.git_server
        if server.records_processes:
            server.record_processes(self.path)
        if server.held_method in {"", self.command}:
            server.asked.set()
            server.may_answer.wait(timeout=60)
        if fault.does and fault.does not in _BY_CONTENT:
            self._break(fault)
            return
        if server.lfs is not None and server.lfs.serves(self.path):
            status, content = server.lfs.answer(server, self.command, self.path, dict(self.headers), body)
            self.send_response(status)
            if status == 401:
                self.send_header("LFS-Authenticate", "Basic")
            self.send_header("Content-Type", MEDIA_TYPE)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self._send(content, fault.does)
            return
        if not server.admits(self.headers.get("Authorization")):
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        path, _, query = self.path.partition("?")
        response = subprocess.run(
            ["git", "http-backend"],
            input=body,
            capture_output=True,
            check=False,  # it fails when it has said no
            env={
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(server.root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_CONFIG_GLOBAL": "/dev/null",
                "REMOTE_USER": "tester",
                "REQUEST_METHOD": self.command,
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "HTTP_GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            },
        ).stdout
        if fault.does == "lose":
            self._hang_up()
            return
        headers, _, content = response.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in headers.decode().split("\r\n"))
        self.send_response(int(fields.pop("Status", "200").split()[0]))
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self._send(content, fault.does)

    def _send(self, content: bytes, does: int | str) -> None:
        half = len(content) // 2
        if does == "drip":
            for piece in (content[:half], content[half:]):
                self.wfile.write(piece)
                self.wfile.flush()
                time.sleep(_DRIP_SECONDS)
            return
        self.wfile.write(b"" if does == "headers" else content[:half] if does in {"cut", "stall"} else content)
        if does == "stall":
            self._wait_for_end()
        elif does:
            self._hang_up()

    def _fault(self) -> Fault:
        for fault in self.git_server.faults:
            if fault.times and fault.at in f"{self.command} {self.path}":
                if fault.after:
                    fault.after -= 1
                else:
                    fault.times -= 1
                    return fault
        return _NOTHING

    def _break(self, fault: Fault) -> None:
        does = fault.does
        if does == "drop":
            self._hang_up()
            return
        if does == "hang":
            self._wait_for_end()
            return
        content = b"<html>Sign in</html>\n" if does == "page" else b""
        self.send_response(does if isinstance(does, int) else 200 if does == "page" else fault.code)
        if isinstance(does, str) and does != "page":
            self.send_header("Location", does.format(path=self.path))
        if fault.retry_after:
            self.send_header("Retry-After", str(fault.retry_after))
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _wait_for_end(self) -> None:
        """Say nothing more until the client has gone."""
        self.wfile.flush()
        with suppress(ConnectionError):
            self.connection.recv(1)
        self.close_connection = True

    def _hang_up(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)
