"""The runner's end of the door: it makes the door's process, and records what that reports."""

import contextlib
import json
import os
import secrets
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from services.agent.asks import ModelGate, Reservation
from services.agent.providers import ModelProvider, ModelWire, keys_by_name
from services.execution.door import PORT, prices, process, wires
from services.execution.door.ask_records import AskRecords
from services.execution.door.outages import FIRST_BYTE_S, Trouble
from services.execution.door.prices import priced
from services.execution.door.server import Door
from services.execution.door.tapes import NO_TAPES, Tapes
from services.execution.door.upstream import tls_context
from services.execution.eventlog import EventKind, EventWriter
from services.execution.inbox.asks import Asks
from services.execution.netns import LOOPBACK, listening, sockets_inside

_TOKEN_BYTES = 32
_ENDS_WITHIN_S = 5.0
_MAX_STARTS = 100
_STEP = "model"


def preload() -> None:
    """Read the system's certificates and the prices, in the process that runners are forked from."""
    tls_context("")
    prices.load()


class ModelDoor:
    """The door of one run. It is there from `open` on, and answers from `start` on: clients wait meanwhile."""

    def __init__(
        self,
        providers: Sequence[ModelProvider],
        patience_s: float = 0.0,
        *,
        asks: Asks | None = None,
        first_byte_s: float = FIRST_BYTE_S,
    ) -> None:
        """`patience_s` is how long it waits for models that do not answer, `first_byte_s` for a stream to begin.

        With `asks`, each request that may cost something is asked for before it is sent.
        """
        self._providers = providers
        self._patience_s = patience_s
        self._first_byte_s = first_byte_s
        self._asks = asks
        self._token = secrets.token_urlsafe(_TOKEN_BYTES)
        self._listening: socket.socket | None = None
        self._port = PORT
        self._buffer = b""
        self._starts = 0
        self._recorded: dict[str, int] = {}
        self._open: dict[int, dict[str, Any]] = {}  # requests that were sent, by their number
        self._process: int | None = None  # its pidfd
        self.tapes: Tapes = NO_TAPES
        """What is recorded and replayed, from `start` on."""
        self.trouble: Trouble | None = None
        """Why models do not answer; None while they do, and before one was asked."""
        self.pid: int | None = None
        """The door's process, while there is one."""
        self.reports: int | None = None
        """Readable when `record` has something to record, or the process has ended; None while there is none."""
        self.opened, self._open_end = os.pipe()
        """Becomes readable when `start` is to be called."""
        # Its other end is closed when this process ends, however that happens, and then the door ends too.
        self._life, self._life_end = os.pipe()

    def variables(self, own: Mapping[str, object]) -> dict[str, bytes]:
        """Return what tells an agent of the door; `own` are the variables that it has anyway."""
        url = f"http://{LOOPBACK}:{self._port}"
        return wires.variables({provider.wire for provider in self._providers}, url, self._token, own)

    @property
    def secrets(self) -> dict[str, bytes]:
        """What must not appear in events, by name: the providers' keys, and the token."""
        shown = {**keys_by_name(self._providers), wires.TOKEN_VARIABLE: self._token}
        return {name: value.encode() for name, value in shown.items()}

    def open_here(self) -> None:
        """Listen on the machine's own loopback, for an agent without a sandbox. Raises OSError."""
        self._listening = listening(LOOPBACK, 0)
        self._port = self._listening.getsockname()[1]
        os.write(self._open_end, b"x")

    def open(self, init: int) -> None:
        """Listen in the sandbox whose init has this pid. Raises SandboxUnavailableError."""
        (self._listening,) = sockets_inside(init, lambda: [listening(LOOPBACK, PORT)])
        os.write(self._open_end, b"x")

    def start(self, leave: Callable[[], object] = lambda: None) -> None:
        """Make the process, which begins by `leave`. Raises OSError."""
        if self._listening is None or self.pid is not None:
            return
        self._starts += 1
        sys.stderr.flush()
        self.reports, reports_end = os.pipe()
        os.set_blocking(self.reports, False)
        try:
            door = partial(
                Door,
                self._providers,
                self._token,
                patience_s=self._patience_s,
                tapes=self.tapes,
                asks=self._asks,
                first_byte_s=self._first_byte_s,
            )
            serve = partial(process.run, self._listening, reports_end, self._life, door)
            with process.ends_held_back():
                self.pid = os.fork()
                if self.pid == 0:
                    leave()
                    serve()
            self._process = os.pidfd_open(self.pid)
        finally:
            os.close(reports_end)

    def restart(self) -> bool:
        """Make the process again, after `record` has told its end; False when that has happened too often."""
        if self._starts >= _MAX_STARTS:
            return False
        self.start()
        return True

    def record(self, writer: EventWriter) -> bool:
        """Append what the door has reported; return False when its process has ended, and has been let go."""
        if self.reports is None:
            return False
        more = True
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self.reports, 65536):
                self._buffer += chunk
            more = False
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            self._record(writer, json.loads(line))
        if not more:
            self._let_go(writer)
            self._end_asks(writer)
        return more

    def _record(self, writer: EventWriter, report: dict[str, Any]) -> None:
        if "note" in report:
            writer.note(report["note"], _STEP)
            return
        if "sent" in report:
            self._open[report["sent"]] = report
            return
        if "unbilled" in report:
            self._open.pop(report["unbilled"], None)
            return
        if "trouble" in report:
            self.trouble = None if report["trouble"] is None else Trouble(**report["trouble"])
            return
        if self._asks is not None and "usage" not in report:
            self._record_ask(AskRecords(self._asks, writer), report)
            return
        self._open.pop(report["number"], None)
        self._record_usage(writer, ModelWire(report["wire"]), report["usage"])

    def _record_usage(self, writer: EventWriter, wire: ModelWire, fields: dict[str, Any]) -> None:
        usage = priced(wire, fields)
        # Sums are over distinct ids, and not every provider's are.
        request_id = usage["request_id"] or "request"
        count = self._recorded[request_id] = self._recorded.get(request_id, 0) + 1
        if count > 1 or not usage["request_id"]:
            request_id = f"{request_id}#{count}"
        writer.fields(EventKind.USAGE, **usage | {"request_id": request_id})
        if self._asks is not None:
            AskRecords(self._asks, writer).settled(usage.get("ask_id"))

    def _record_ask(self, records: AskRecords, report: dict[str, Any]) -> None:
        match report:
            case {"ask": ask_id, "reservation": fields}:
                ways = tuple(ModelGate(**way) for way in fields["ways"])
                records.ask(ask_id, Reservation(**fields | {"wire": ModelWire(fields["wire"]), "ways": ways}))
            case {"ask_end": ask_id, "is_use_unknown": is_use_unknown, "gates": gates}:
                records.end(ask_id, is_use_unknown=is_use_unknown, gates=gates)

    def _end_asks(self, writer: EventWriter) -> None:
        if self._asks is not None:
            AskRecords(self._asks, writer).end_all()

    def close(self, writer: EventWriter) -> None:
        """End the door, after it has reported what its open requests have used."""
        deadline = time.monotonic() + _ENDS_WITHIN_S
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, signal.SIGTERM)
        while self.reports is not None and self.record(writer):
            if not select.select([self.reports], [], [], max(0.0, deadline - time.monotonic()))[0]:
                break
        if self.reports is not None:
            self._let_go(writer)
            self._end_asks(writer)
        if self._listening is not None:
            self._listening.close()
        for fd in (self.opened, self._open_end, self._life, self._life_end):
            os.close(fd)

    def _let_go(self, writer: EventWriter) -> None:
        """Forget the process, of which nothing is left afterwards, and record what it was killed over."""
        for lost in self._open.values():
            self._record_usage(writer, ModelWire(lost["wire"]), lost["fields"])
        self._open.clear()
        if self.reports is not None:
            os.close(self.reports)
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):  # whoever ended the program's processes has waited for it too
                os.waitid(os.P_PIDFD, self._process, os.WEXITED)
            os.close(self._process)
        self.pid = self.reports = self._process = None
        self._buffer = b""
