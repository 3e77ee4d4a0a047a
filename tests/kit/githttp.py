"""A git server over HTTP on this machine, by git's own `http-backend`, that requires a token.

At each request it records the command lines of all processes, because everybody can read what is in argv.
"""

import base64
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


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
        server.record_processes(self.path)
        if server.held_method in {"", self.command}:
            server.asked.set()
            server.may_answer.wait(timeout=60)
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
        headers, _, content = response.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in headers.decode().split("\r\n"))
        self.send_response(int(fields.pop("Status", "200").split()[0]))
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
