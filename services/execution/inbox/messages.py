"""Messages, questions and answers between people and a running agent: files in the run directory.

    talk/lock                     held for a moment by whoever sends, answers or closes
    talk/messages/<n>-<id>        messages for the agent, in order; written by the service
    talk/closed                   the runner has looked for the last time: no more messages are taken
    talk/questions/<id>           what the agent asks before it does it: see `questions`
    talk/answers/<id>             what somebody answered

Each is durable before anybody hears of it, so the death of either end neither loses one nor doubles one. Standard
library only.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from services.common.files import reserve, write_whole
from services.execution.inbox.questions import Questions

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
        self._questions = Questions(self._path)
        self._closed = self._path / "closed"

    def create(self) -> None:
        """Make the directories; an execution without them takes no messages and asks nothing.

        Closing it needs no further room on the disk.
        """
        self._questions.create()
        self._messages.mkdir(mode=0o700)
        reserve(self._closed, 1)

    @property
    def exists(self) -> bool:
        """True when the execution's engine takes messages or asks for permission."""
        return self._path.is_dir()

    def post(self, message: Message) -> None:
        """Store a message, unless it is there already. Raises the errors of this module."""
        with self._questions.locked():
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
        with self._questions.locked():
            if delivered is not None and any(message.message_id not in delivered for message in self.messages()):
                return False
            write_whole(self._closed, b"", durable=True)
            return True

    def ask(self, request: PermissionRequest) -> None:
        """Write a question down for whoever may answer it."""
        self._questions.ask(request.permission_id, asdict(request))

    def request(self, permission_id: str) -> PermissionRequest | None:
        """Return a question, None when it was not asked."""
        fields = self._questions.question(permission_id)
        return None if fields is None else PermissionRequest(**fields)

    def pending(self) -> list[PermissionRequest]:
        """Return the questions that nobody has answered, in order; none when the engine asks nothing."""
        requests = [self.request(name) for name in self._questions.open() if self.answer_to(name) is None]
        return [request for request in requests if request is not None]

    def answer(self, permission_id: str, answer: PermissionAnswer) -> PermissionAnswer:
        """Answer a question; return the answer that holds, which is the first."""
        return PermissionAnswer(**self._questions.answer(permission_id, asdict(answer)))

    def answer_to(self, permission_id: str) -> PermissionAnswer | None:
        """Return the answer to a question, None when there is none."""
        fields = self._questions.answer_to(permission_id)
        return None if fields is None else PermissionAnswer(**fields)
