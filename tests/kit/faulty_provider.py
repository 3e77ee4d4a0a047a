"""A provider of models that answers every request alike, but for those that it refuses."""

import contextlib
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar

ASK = 'curl -sS --fail -H x-api-key:$ANTHROPIC_API_KEY -d \'{"model": "m"}\' $ANTHROPIC_BASE_URL/v1/messages'
"""How a shell asks it, through the door of its execution: for 7 tokens."""

_ANSWER = b'{"id": "msg_1", "model": "m", "usage": {"input_tokens": 3, "output_tokens": 4}}'


class FaultyProvider(ThreadingHTTPServer):
    """Serves the Messages API; what it refuses, a test says."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answered_with(self) -> tuple[int, Mapping[str, str]]:
        """Return status and headers of the answer to the next request."""
        return 200, {}


class _Answering(BaseHTTPRequestHandler):
    server: FaultyProvider

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        status, headers = self.server.answered_with()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(_ANSWER)))
        self.end_headers()
        self.wfile.write(_ANSWER)

    def log_message(self, *_: object) -> None:
        pass


Serving = TypeVar("Serving", bound=FaultyProvider)


@contextlib.contextmanager
def serving(provider: Serving) -> Iterator[Serving]:
    """Serve until the block ends."""
    with provider:
        thread = threading.Thread(target=provider.serve_forever)
        thread.start()
        try:
            yield provider
        finally:
            provider.shutdown()
            thread.join()
