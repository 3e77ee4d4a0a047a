"""What passes the door, in a file: what the agent asks, and what it is answered, without any secret.

Standard library only. docs/recordings.md describes the lines. Each is written at once, so that whoever reads the file
meanwhile finds whole lines, and what a killed door was in the middle of has no end.
"""

import base64
import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from services.agent.recordings import MOST_BYTES, VERSION, RecordingError, head_of
from services.common.room import is_out_of_room
from services.common.untrusted_json import most_values, parse_json
from services.execution.door import wires
from services.execution.door.http import Answer, Request
from services.redaction.strand import Flow, Redactor

_MOST_VALUES: Final = 1 << 20
_NOT_RECORDED: Final = (b"host", b"set-cookie", b"expect", *wires.CREDENTIAL_FIELDS)
_END_BYTES: Final = 64  # of the line that says why a recording stops


class Recording:
    """The file of one execution. A door that is made again goes on where the one before was."""

    def __init__(self, path: Path, redactor: Redactor, head: Mapping[str, Any], floor_bytes: int = 0) -> None:
        """`head` says what is recorded. Nothing is written that leaves less than `floor_bytes` on the disk."""
        self._redactor = redactor
        self._floor = floor_bytes
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        lines = path.read_bytes().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            os.ftruncate(self._fd, sum(map(len, lines[:-1])))
        self._size = os.fstat(self._fd).st_size
        self._count = sum(line.startswith(b'{"n": ') and b'"request": ' in line[:64] for line in lines)
        self._is_open = True
        self.complaint = ""
        """Why nothing more is recorded, until somebody has said it."""
        try:
            self._began = float(head_of(lines[0].rstrip())["began"]) if lines else time.time()
        except (RecordingError, LookupError, TypeError, ValueError):
            self._began = time.time()
        if not self._size:
            self._write({"recording": VERSION, **head, "began": round(self._began, 3)})

    def track(self, request: Request, body: bytes) -> "Track":
        """Record a request; return what records its answer."""
        self._count += 1
        path = self._redactor.text(request.path + wires.query_there(request.query))
        asked = {"method": request.method, "path": path, "fields": self._fields(request.end_to_end(_NOT_RECORDED))}
        self.line(self._count, "request", {**asked, **_content(self._redactor.bytes(body))})
        return Track(self, self._count, Flow(self._redactor))

    def line(self, number: int, key: str, value: object) -> None:
        """Record something of an exchange."""
        self._write({"n": number, "at": round(time.time() - self._began, 6), key: value})

    def answer(self, number: int, provider: str, status: int, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """Record the head of an answer."""
        self.line(number, "answer", {"status": status, "provider": provider, "fields": self._fields(fields)})

    def _fields(self, fields: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
        return {name.decode(): self._redactor.text(value.decode("latin-1")) for name, value in fields}

    def _write(self, line: Mapping[str, object]) -> None:
        if not self._is_open:
            return
        data = _encoded(line)
        if self._size + len(data) + _END_BYTES > MOST_BYTES:
            self._stop("full", f"it has {MOST_BYTES >> 20} MiB, which is the most")
            return
        try:
            filesystem = os.fstatvfs(self._fd)
            if filesystem.f_bavail * filesystem.f_frsize - len(data) < self._floor:
                self._stop("disk", "the disk has no room for it")
                return
            os.write(self._fd, data)
            self._size += len(data)
        except OSError as error:
            if not is_out_of_room(error):
                raise
            os.ftruncate(self._fd, self._size)
            self._stop("disk", "the disk has no room for it")

    def _stop(self, why: str, complaint: str) -> None:
        self._is_open = False
        self.complaint = f"what models are asked is recorded no further: {complaint}"
        try:
            os.write(self._fd, _encoded({"stopped": why}))
        except OSError:
            os.ftruncate(self._fd, self._size)


class Track:
    """Records the answer to one request; without a recording it does nothing."""

    def __init__(self, recording: Recording | None = None, number: int = 0, flow: Flow | None = None) -> None:
        self._recording = recording
        self._number = number
        self._flow = flow

    def answer(self, provider: str, answer: Answer) -> None:
        """Record the head of the answer."""
        if self._recording is not None:
            self._recording.answer(self._number, provider, answer.status, answer.end_to_end(_NOT_RECORDED))

    def take(self, data: bytes) -> None:
        """Record a piece of the answer's body."""
        if self._flow is not None:
            self._data(self._flow.take(data))

    def end(self, *, is_complete: bool) -> None:
        """Record how the answer ended."""
        if self._recording is not None and self._flow is not None:
            self._data(self._flow.take(b"", last=True))
            self._recording.line(self._number, "end", "complete" if is_complete else "broken")

    def refused(self, status: int, text: str) -> None:
        """Record an answer of the door's own."""
        if self._recording is not None:
            self._recording.answer(self._number, "", status, [(b"content-type", b"application/json")])
            self.take(json.dumps({"error": {"message": text}}).encode())
            self.end(is_complete=True)

    def _data(self, data: bytes) -> None:
        if data and self._recording is not None:
            ((key, value),) = _text(data).items()
            self._recording.line(self._number, "data" if key == "text" else key, value)


def _content(body: bytes) -> dict[str, Any]:
    """Return the body of a request as a line has it: as JSON if it is that, else as text or base64."""
    if not body:
        return {}
    if most_values(body) <= _MOST_VALUES:
        try:
            return {"json": parse_json(body)}
        except ValueError:
            pass
    return dict(_text(body))


def _text(data: bytes) -> dict[str, str]:
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _encoded(line: Mapping[str, object]) -> bytes:
    try:
        return json.dumps(line, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half of a character, which JSON may have
        return json.dumps(line).encode() + b"\n"
