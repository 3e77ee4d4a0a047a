"""What git says on standard error while it works, and when it fails."""

import asyncio
import re
from collections.abc import Callable
from typing import Final

from services.git.gitcmd.errors import scrub

_CHUNK: Final = 64 * 1024
_KEPT: Final = 10 * 1024
# What is not about a failure: progress, and what git says of objects that it takes all the same.
_CHATTER: Final = re.compile(
    r": +\d+% \(\d+/\d+\)|^(remote: )?(Enumerating objects: |Total \d+ |Delta compression using )"
    "|^warning: object [0-9a-f]{40,64}: "
)


class Messages:
    """Keeps the end of git's stderr, and passes on each line; lines of progress end with a carriage return.

    Nobody is told `secrets`.
    """

    def __init__(
        self, reader: asyncio.StreamReader, secrets: tuple[str, ...], on_message: Callable[[str], None] | None
    ) -> None:
        self._secrets = secrets
        self._on_message = on_message
        self._kept = bytearray()
        self._partial = b""
        self._task = asyncio.create_task(self._drain(reader))

    async def finished(self) -> None:
        """Wait until git, and everything that it started, has closed the pipe."""
        await asyncio.shield(self._task)

    async def stop(self) -> None:
        """Read no more."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    @property
    def text(self) -> str:
        """Git's messages without chatter, scrubbed before being cut: a secret cut in two would not be found."""
        whole = self._kept.decode("utf-8", "replace").replace("\r", "\n")
        lines = (line.rstrip() for line in whole.split("\n") if not _CHATTER.search(line))
        messages = "\n".join(lines)  # git fills a remote's lines up with blanks
        return scrub(messages, self._secrets)[-_KEPT:].strip()

    async def _drain(self, reader: asyncio.StreamReader) -> None:
        while chunk := await reader.read(_CHUNK):
            self._kept += chunk
            del self._kept[: -2 * _KEPT]
            if self._on_message is not None:
                *lines, self._partial = (self._partial + chunk).replace(b"\r", b"\n").split(b"\n")
                self._partial = self._partial[-_KEPT:]
                for line in lines:
                    self._on_message(scrub(line.decode("utf-8", "replace"), self._secrets))
