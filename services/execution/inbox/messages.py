"""Messages, questions and answers between people and a running agent: files in the run directory.

    talk/lock                     held for a moment by whoever sends, answers or closes
    talk/messages/<n>-<id>        messages for the agent, in order; written by the service
    talk/closed                   the runner has looked for the last time: no more messages are taken
    talk/questions/<id>           what the agent asks before it does it; written by the runner
    talk/answers/<id>             what somebody answered; written by the service, and the first one stays

Each is durable before anybody hears of it, so the death of either end neither loses one nor doubles one. Standard
library only.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from services.common.files import reserve, write_whole

MAX_MESSAGES = 1000
"""The most messages that one execution takes."""


class ClosedError(Exception):
    """The execution takes no more messages."""


class MessageReusedError(Exception):
    """There is a message of this id with another text."""


class TooManyMessagesError(Exception):
    """The execution has been sent MAX_MESSAGES already."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message for the agent."""

    message_id: str
    text: str


@dataclass(frozen=True, slots=True)
class PermissionRequest:
    """A tool call that waits for permission. `input` is JSON, without secrets."""

    permission_id: str
    tool: str
    input: str
    tool_call_id: str


@dataclass(frozen=True, slots=True)
class PermissionAnswer:
    """What somebody decided about a request."""

    allowed: bool
    decided_by: str
    reason: str


class Inbox:
    """One execution's inbox."""

    def __init__(self, run: Path) -> None:
        self._path = run / "talk"
        self._messages = self._path / "messages"
        self._questions = self._path / "questions"
        self._answers = self._path / "answers"
        self._closed = self._path / "closed"

    def create(self) -> None:
        """Make the directories; an execution without them takes no messages and asks nothing.

        Closing it needs no further room on the disk.
        """
        for directory in (self._path, self._messages, self._questions, self._answers):
            directory.mkdir(mode=0o700)
        reserve(self._closed, 1)
        with self._locked():
            pass

    @property
    def exists(self) -> bool:
        """True when the execution's engine takes messages or asks for permission."""
        return self._path.is_dir()

    def post(self, message: Message) -> None:
        """Store a message, unless it is there already. Raises the errors of this module."""
        with self._locked():
            known = {each.message_id: each for each in self.messages()}
            if message.message_id in known:
                if known[message.message_id] != message:
                    raise MessageReusedError
                return
            if self._closed.exists():
                raise ClosedError
            if len(known) >= MAX_MESSAGES:
                raise TooManyMessagesError
            write_whole(self._messages / f"{len(known):06d}-{message.message_id}", message.text.encode(), durable=True)

    def messages(self) -> list[Message]:
        """Return all messages, in order."""
        files = sorted(file for file in self._messages.iterdir() if not file.name.startswith("."))
        return [Message(file.name.partition("-")[2], file.read_text()) for file in files]

    def close(self, delivered: set[str] | None = None) -> bool:
        """Take no more messages; with `delivered`, only if there are no others. Return True when closed."""
        with self._locked():
            if delivered is not None and any(message.message_id not in delivered for message in self.messages()):
                return False
            write_whole(self._closed, b"", durable=True)
            return True

    def ask(self, request: PermissionRequest) -> None:
        """Write a question down for whoever may answer it."""
        write_whole(self._questions / request.permission_id, json.dumps(asdict(request)).encode(), durable=True)

    def request(self, permission_id: str) -> PermissionRequest | None:
        """Return a question, None when it was not asked."""
        try:
            return PermissionRequest(**json.loads((self._questions / permission_id).read_bytes()))
        except FileNotFoundError:
            return None

    def pending(self) -> list[PermissionRequest]:
        """Return the questions that nobody has answered, in order; none when the engine asks nothing."""
        with contextlib.suppress(FileNotFoundError):
            asked = {file.name for file in self._questions.iterdir() if not file.name.startswith(".")}
            unanswered = asked - {file.name for file in self._answers.iterdir()}
            requests = [self.request(name) for name in sorted(unanswered, key=lambda name: (len(name), name))]
            return [request for request in requests if request is not None]
        return []

    def answer(self, permission_id: str, answer: PermissionAnswer) -> PermissionAnswer:
        """Answer a question; return the answer that holds, which is the first."""
        with self._locked():
            known = self.answer_to(permission_id)
            if known is None:
                write_whole(self._answers / permission_id, json.dumps(asdict(answer)).encode(), durable=True)
            return known or answer

    def answer_to(self, permission_id: str) -> PermissionAnswer | None:
        """Return the answer to a question, None when there is none."""
        try:
            return PermissionAnswer(**json.loads((self._answers / permission_id).read_bytes()))
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        fd = os.open(self._path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)
