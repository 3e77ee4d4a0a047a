"""A recording in place of providers: it is an upstream of the door that needs neither a network nor a key.

Standard library only.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import socket
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from services.agent.providers import REPLAYED, ModelProvider
from services.agent.recordings import Matching, RecordingError, head_of
from services.common.untrusted_json import most_values, parse_json
from services.execution.door import wires
from services.execution.door.http import CHUNK, MessageError, Request, Stream, written
from services.execution.door.matching import difference, essence, steady_text
from services.execution.door.outages import Trouble
from services.execution.door.reports import Reporter
from services.execution.door.upstream import Upstream

REPLAY_MISMATCH: Final = "REPLAY_MISMATCH"
"""The reason of an execution whose replay is not what was recorded."""

_REFUSED: Final = 400  # which clients do not ask again after
_UNREADABLE: Final = (ValueError, LookupError, TypeError, AttributeError, OverflowError)
"""What a line raises that has other values than lines have: OverflowError for an infinite number."""
_MOST_REQUESTS: Final = 1 << 16
_MOST_VALUES: Final = 1 << 20  # in a line, as in a request that is recorded
_WAITS: Final = frozenset({"retry-after", "retry-after-ms"})


class MismatchError(Exception):
    """No answer was recorded for a request; the text says why."""


class UnfaithfulError(MismatchError):
    """The same, where a replay must be what was recorded: by then it is another run, whatever its agent makes of it."""


@dataclass(slots=True)
class _Exchange:
    """What was recorded of one request: where its lines are in the file."""

    number: int
    method: str
    path: str
    request: int
    digest: bytes = b""
    answer: "array[int]" = field(default_factory=partial(array, "Q"))
    is_taken: bool = False
    """True when its answer has been given, or is just being given."""


class Replay:
    """The recording of one execution, and how far it has been played."""

    def __init__(self, path: Path, matching: Matching, redactor: Callable[[bytes], bytes], workspace: str = "") -> None:
        """Read a recording. Beside it is a file with what has been played, for a door that is made again.

        `redactor` keeps out of a request what it kept out of the recording. Raises RecordingError.
        """
        self._matching = matching
        self._redacted = redactor
        self._workspace = workspace
        self._recorded_workspace = ""
        self._file = path.open("rb")
        self._played = path.with_name(f"{path.name}.played")
        self._exchanges: list[_Exchange] = []
        self._stopped = ""
        try:
            self._read()
        except BaseException:
            self._file.close()
            raise
        if self._played.exists():
            played = set(map(int, self._played.read_text().split()))
            for each in self._exchanges:
                each.is_taken = each.number in played

    def find(self, request: Request, body: bytes) -> int:
        """Return where the answer to a request is, which is then taken. Raises MismatchError."""
        clean = self._redacted(body)
        path = steady_text(request.path, self._workspace)
        alike = [
            (index, each)
            for index, each in enumerate(self._exchanges)
            if (each.method, each.path) == (request.method, path)
        ]
        found = self._in_order(alike) if self._matching is Matching.ORDER else self._equal(alike, clean)
        if found is None:
            error = MismatchError if self._matching is Matching.ORDER or not _is_metered(request) else UnfaithfulError
            raise error(self._complaint(request, [each for _, each in alike], clean))
        self._exchanges[found].is_taken = True
        return found

    def answer(self, index: int) -> Iterator[Mapping[str, Any]]:
        """Yield the lines of an answer."""
        for place in self._exchanges[index].answer:
            yield self._line(place)

    def played(self, index: int) -> None:
        """Remember that an answer has been given to its end."""
        with self._played.open("a") as played:
            played.write(f"{self._exchanges[index].number}\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read(self) -> None:
        by_number: dict[int, _Exchange] = {}
        self._recorded_workspace = str(head_of(self._file.readline().rstrip()).get("workspace", ""))
        offset, line_number = self._file.tell(), 1
        for data in self._file:
            line_number += 1
            place, offset = offset, offset + len(data)
            if most_values(data) > _MOST_VALUES or len(self._exchanges) >= _MOST_REQUESTS:
                most = f"{_MOST_REQUESTS:,} requests, of {_MOST_VALUES:,} values each"
                raise RecordingError(f"line {line_number} of the recording is too much: it may have {most}")
            try:
                line = parse_json(data)
                if "stopped" in line:
                    self._stopped = str(line["stopped"])
                elif "request" in line:
                    by_number[line["n"]] = exchange = self._exchange(line, place)
                    self._exchanges.append(exchange)
                else:
                    by_number[line["n"]].answer.append(place)
            except _UNREADABLE as error:
                raise RecordingError(f"line {line_number} of the recording cannot be read") from error

    def _exchange(self, line: Mapping[str, Any], place: int) -> _Exchange:
        request = line["request"]
        path = steady_text(request["path"].partition("?")[0], self._recorded_workspace)
        exchange = _Exchange(int(line["n"]), request["method"], path, place)
        if self._matching is Matching.STRICT:
            exchange.digest = _digest(_recorded_essence(request, self._recorded_workspace))
        return exchange

    def _line(self, place: int) -> dict[str, Any]:
        self._file.seek(place)
        line: dict[str, Any] = parse_json(self._file.readline())
        return line

    @staticmethod
    def _in_order(alike: list[tuple[int, _Exchange]]) -> int | None:
        return next((index for index, each in alike if not each.is_taken), None)

    def _equal(self, alike: list[tuple[int, _Exchange]], body: bytes) -> int | None:
        """Return the first that is equal and was not taken; or else the last equal one, which is then asked again."""
        wanted = _digest(_asked_essence(body, self._workspace))
        equal = [(index, each) for index, each in alike if each.digest == wanted]
        return next((index for index, each in equal if not each.is_taken), equal[-1][0] if equal else None)

    def _complaint(self, request: Request, alike: list[_Exchange], body: bytes) -> str:
        asked = f"{request.method} {request.path}"
        end = f" The recording was not complete ({self._stopped})." if self._stopped else ""
        if not alike:
            return f"the recording has no {asked}.{end}"
        if (next_one := next((each for each in alike if not each.is_taken), None)) is None:
            return f"the recording has {len(alike)} of {asked}, which have all been answered.{end}"
        recorded = _recorded_essence(self._line(next_one.request)["request"], self._recorded_workspace)
        differs = difference(recorded, _asked_essence(body, self._workspace))
        return f"{asked} is not what was recorded as request {next_one.number}: {differs}"


def _is_metered(request: Request) -> bool:
    """Return whether a request asks a model something: counting tokens and listing models change nothing."""
    return any(route.metered for route in wires.routes(request))


def _recorded_essence(request: Mapping[str, Any], workspace: str) -> object:
    if "base64" in request:
        return request["base64"]
    return essence(request.get("json", request.get("text", "")), workspace)


def _asked_essence(body: bytes, workspace: str) -> object:
    try:
        return essence(parse_json(body) if body else "", workspace)
    except ValueError:
        pass
    try:
        return essence(body.decode(), workspace)
    except UnicodeDecodeError:
        return base64.b64encode(body).decode()


def _digest(value: object) -> bytes:
    return hashlib.blake2s(json.dumps(value, sort_keys=True).encode()).digest()


class ReplayUpstream(Upstream):
    """Answers the requests of one wire from a recording."""

    def __init__(self, provider: ModelProvider, replay: Replay | RecordingError, reports: Reporter) -> None:
        super().__init__(provider)
        self._wire = provider.wire
        self._replay = replay
        self._reports = reports
        self._serving: set[asyncio.Task[None]] = set()

    async def connect(self) -> Stream:
        """Return a connection to the recording, for one request."""
        ours, theirs = socket.socketpair()
        task = asyncio.create_task(self._serve(theirs))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        reader, writer = await asyncio.open_connection(sock=ours, limit=CHUNK)
        return Stream(reader, writer)

    def keep(self, stream: Stream) -> None:
        """Close a connection: each has one request."""
        stream.writer.close()

    def close(self) -> None:
        """End what is being answered."""
        for task in self._serving:
            task.cancel()
        if isinstance(self._replay, Replay):
            self._replay.close()

    async def _serve(self, end: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=end, limit=CHUNK)
        door = Stream(reader, writer)
        try:
            request = Request.parse(await door.head())
            body = b"".join([piece async for piece in door.pieces(request.body())])
            await self._answer(door, request, body)
        except (OSError, MessageError):
            pass  # the agent has gone
        except _UNREADABLE as error:  # somebody else has written it
            await self._reports.note(f"an answer of the recording cannot be read: {type(error).__name__}: {error}")
        finally:
            writer.close()

    async def _answer(self, door: Stream, request: Request, body: bytes) -> None:
        try:
            replay = self._readable()
            index = replay.find(request, body)
        except MismatchError as mismatch:
            await self._reports.note(f"the replay has no answer: {mismatch}")
            if isinstance(mismatch, UnfaithfulError):
                trouble = Trouble(str(mismatch), REPLAYED, _REFUSED, is_refusal=True, reason=REPLAY_MISMATCH)
                await self._reports.trouble(trouble)
            await self._refuse(door, str(mismatch))
            return
        await self._play(door, replay, index)
        replay.played(index)

    def _readable(self) -> Replay:
        if isinstance(self._replay, RecordingError):
            raise UnfaithfulError(str(self._replay))
        return self._replay

    async def _play(self, door: Stream, replay: Replay, index: int) -> None:
        """Give an answer as it was recorded: each piece by itself, and broken off where that was."""
        ended = ""
        for line in replay.answer(index):
            if "answer" in line:
                await door.write(_head(line["answer"]))
            elif "end" in line:
                ended = line["end"]
            elif data := _data(line):
                await door.write(b"%x\r\n%b\r\n" % (len(data), data))
                await asyncio.sleep(0)  # so that pieces are passed on one by one
        if ended == "complete":
            await door.write(b"0\r\n\r\n")

    async def _refuse(self, door: Stream, text: str) -> None:
        body = wires.error(self._wire, _REFUSED, f"replay: {text}")
        fields = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await door.write(written(b"HTTP/1.1 %d Bad Request" % _REFUSED, fields) + body)


def _head(answer: Mapping[str, Any]) -> bytes:
    """Write the head of a recorded answer. Nobody need wait before asking a recording again."""
    fields = [
        (name.encode(), b"0" if name in _WAITS else str(value).encode("latin-1", "replace"))
        for name, value in answer.get("fields", {}).items()
        if name not in ("content-length", "transfer-encoding", "connection")
    ]
    fields.append((b"transfer-encoding", b"chunked"))
    return written(b"HTTP/1.1 %d Replayed" % answer["status"], fields)


def _data(line: Mapping[str, Any]) -> bytes:
    if "base64" in line:
        with contextlib.suppress(ValueError):
            return base64.b64decode(line["base64"])
    return str(line.get("data", "")).encode("utf-8", "replace")
