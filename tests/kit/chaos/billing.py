"""A provider of models that writes down what it bills: the truth that books are compared with."""

import json
import random
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "claude-sonnet-5-5"
NANODOLLARS_IN, NANODOLLARS_OUT = 2_000, 10_000
"""What a token of MODEL costs, that it reads and that it writes."""
_LONGEST_S = 0.6


@dataclass(slots=True)
class Bill:
    """A request that arrived. What it wrote is not known to who asked unless `is_whole`: all of the answer was sent."""

    job: str
    read: int
    wrote: int = 1
    is_whole: bool = False

    @property
    def tokens(self) -> int:
        return self.read + self.wrote

    @property
    def nanodollars(self) -> int:
        return self.read * NANODOLLARS_IN + self.wrote * NANODOLLARS_OUT


class BillingProvider(ThreadingHTTPServer):
    """Answers each request of the Messages API after a while, with a stream; one in so many breaks off."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, rng: random.Random, *, breaks_off: float) -> None:
        """`breaks_off` is the probability that an answer ends before it has said what it used."""
        super().__init__(("127.0.0.1", 0), _Answering)
        self.bills: list[Bill] = []
        self._breaks_off = breaks_off
        self._rng = rng
        self._drawing = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def bill(self, asked: Mapping[str, Any]) -> tuple[Bill, int, float, bool]:
        """Write down a request; return its bill, what it is to write, in how many seconds, and whether all of it."""
        with self._drawing:
            bill = Bill(asked["metadata"]["user_id"], self._rng.randint(1, 20))
            wrote = self._rng.randint(2, asked["max_tokens"])
            drawn = wrote, self._rng.uniform(0, _LONGEST_S), self._rng.random() >= self._breaks_off
            self.bills.append(bill)
        return bill, *drawn

    def handle_error(self, *_: object) -> None:
        """Say nothing: clients that go away are what this is for."""


class _Answering(BaseHTTPRequestHandler):
    server: BillingProvider
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        bill, wrote, seconds, is_whole = self.server.bill(asked)
        self.close_connection = not is_whole
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        usage = {"input_tokens": bill.read, "output_tokens": 1}
        message = {"id": f"msg_{id(bill)}", "type": "message", "role": "assistant", "content": [], "model": MODEL}
        self._send({"type": "message_start", "message": message | {"usage": usage}})
        time.sleep(seconds)
        bill.wrote = wrote
        if is_whole:
            self._send(
                {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": wrote}}
            )
            self._send({"type": "message_stop"})
            self.wfile.write(b"0\r\n\r\n")
            bill.is_whole = True

    def _send(self, event: Mapping[str, Any]) -> None:
        data = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def billing(rng: random.Random, *, breaks_off: float = 0.0) -> Iterator[BillingProvider]:
    """Run a provider inside the block."""
    with BillingProvider(random.Random(rng.random()), breaks_off=breaks_off) as provider:
        thread = threading.Thread(target=provider.serve_forever)
        thread.start()
        try:
            yield provider
        finally:
            provider.shutdown()
            thread.join()
