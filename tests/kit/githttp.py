"""A git server over HTTP on this machine, by git's own `http-backend`, that requires a token.

At each request it records the command lines of all processes, because everybody can read what is in argv.
"""

import base64
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Fault:
    """What a server does in place of an answer, at requests whose method and path hold `at`, for a number of `times`.

    The first `after` such requests are answered.

    `does` is a status, `page`, a URL to which it sends the client (`{path}` is the request's), `drop` (closes without a
    word), `cut` (closes in the middle of its answer), or `lose` (does what it was asked to, and closes without a word).
    """

    at: str
    does: int | str
    times: int = 1_000_000
    after: int = 0


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
        self.faults: list[Fault] = []
        self.records_processes = True

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}"

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
def git_server(root: Path, token: str) -> Iterator[GitServer]:
    """Serve inside of the block."""
    server = GitServer(root, token)

    class Handler(_Handler):
        git_server = server

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = False
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
        self._serve(b"")

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            self._serve(b"".join(iter(self._chunk, b"")))
        else:
            self._serve(self.rfile.read(int(self.headers["Content-Length"])))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""

    def _chunk(self) -> bytes:
        data = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return data

    def _serve(self, body: bytes) -> None:
        server = self.git_server
        if server.records_processes:
            server.record_processes(self.path)
        if server.held_method in {"", self.command}:
            server.asked.set()
            server.may_answer.wait(timeout=60)
        does = self._fault()
        if does and does not in {"cut", "lose"}:
            self._break(does)
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
            check=True,
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
        if does == "lose":
            self._hang_up()
            return
        headers, _, content = response.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in headers.decode().split("\r\n"))
        self.send_response(int(fields.pop("Status", "200").split()[0]))
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if does == "cut" else content)
        if does == "cut":
            self._hang_up()

    def _fault(self) -> int | str:
        for fault in self.git_server.faults:
            if fault.times and fault.at in f"{self.command} {self.path}":
                if fault.after:
                    fault.after -= 1
                    continue
                fault.times -= 1
                return fault.does
        return ""

    def _break(self, does: int | str) -> None:
        if does == "drop":
            self._hang_up()
            return
        content = b"<html>Sign in</html>\n" if does == "page" else b""
        self.send_response(does if isinstance(does, int) else 200 if does == "page" else 302)
        if isinstance(does, str) and does != "page":
            self.send_header("Location", does.format(path=self.path))
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _hang_up(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)
