"""What a server answered over HTTP, which git does not tell: where it sends us, and what it calls its content.

Git takes a page for signing in, in place of a list of refs, for an empty repository.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import BinaryIO, Final
from urllib.parse import urljoin

from services.git.gitcmd import Command, Git, GitError, GitFailed, GitOutput, Invocation, scrub
from services.git.remote.far_side import Connection

_HEADER: Final = re.compile(rb"<= Recv header: (.*)")
_STATUS: Final = re.compile(r"HTTP/[\d.]+ (\d{3})")
_OF_GIT: Final = re.compile(r"/(info/refs|git-upload-pack|git-receive-pack)(\?.*)?$")
_SECONDS: Final = re.compile("[0-9]{1,7}")
_LONGEST: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """The last answer of a server: its status, 0 without one, and some of its headers; `retry_after` is in seconds."""

    status: int = 0
    location: str = ""
    content_type: str = ""
    retry_after: int = 0

    def complaint(self, url: str) -> str:
        """Return what is wrong with the answer to one of git's requests to the remote at `url`; empty if nothing."""
        if 300 <= self.status < 400 and self.location:
            target = scrub(urljoin(f"{url.rstrip('/')}/info/refs", self.location))
            if _OF_GIT.search(target):
                return f"the repository has moved to {_OF_GIT.sub('', target)}"
            return f"the server answers with a page, as for signing in: {target.partition('?')[0]}"
        if 200 <= self.status < 300 and self.content_type.startswith("text/html"):
            return "the server answers with a page, as for signing in"
        if self.status >= 400 and self.retry_after:
            return f"the server is busy (HTTP {self.status}), and wants to be asked again in {self.retry_after} s"
        return ""


async def run_connected(git: Git, command: Command, connection: Connection) -> GitOutput:
    """Run a command that speaks to a remote.

    Raises:
        GitError: as `Git.run` does; in better words than git's own, where the last answer is of no git server.
    """
    with _answers_of(connection.invocation) as (invocation, answers):
        try:
            output = await git.run(command, invocation)
        except GitFailed:
            answers.check(command.name, connection.url)
            raise
        if output.code or not output.stdout:
            answers.check(command.name, connection.url)
    return output


@contextmanager
def _answers_of(invocation: Invocation) -> Iterator[tuple[Invocation, "_Answers"]]:
    """Give the invocation of one command, and what its server answers. Over other transports that is nothing."""
    if invocation.protocol not in {"https", "http"}:
        yield invocation, _Answers(None)
        return
    with os.fdopen(os.memfd_create("http-answers"), "rb") as file:  # it is on no disk
        path = f"/proc/{os.getpid()}/fd/{file.fileno()}"
        yield replace(invocation, http_trace=path), _Answers(file)


class _Answers:
    """What git has recorded of a server's answers."""

    def __init__(self, file: BinaryIO | None) -> None:
        self._file = file

    def check(self, name: str, url: str) -> None:
        """Raise GitError where the last answer to command `name` is of no git server."""
        if self._file is not None and (complaint := self._last().complaint(url)):
            raise GitError(name, complaint)

    def _last(self) -> HttpAnswer:
        answer = HttpAnswer()
        if self._file is None:
            return answer
        self._file.seek(0)
        for line in _HEADER.findall(self._file.read(_LONGEST)):
            text = line.decode("latin-1").strip()
            name, _, value = text.partition(": ")
            if status := _STATUS.match(text):
                answer = HttpAnswer(int(status[1]))
            elif name.lower() == "location":
                answer = replace(answer, location=value)
            elif name.lower() == "content-type":
                answer = replace(answer, content_type=value)
            elif name.lower() == "retry-after" and _SECONDS.fullmatch(value):
                answer = replace(answer, retry_after=int(value))
        return answer
