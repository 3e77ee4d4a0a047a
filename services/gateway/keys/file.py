"""The file with a cell's keys: one a line, in base64, the newest first. It is as secret as what they seal."""

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path

from services.common.errors import StartError
from services.common.files import foreign_owner, write_whole
from services.gateway.schema.sealing import KEY_BYTES


class KeyFile:
    """One file of keys."""

    def __init__(self, path: Path, closed_to: int = 0o077) -> None:
        """`closed_to` are the bits of its mode that must not be set."""
        self.path = path
        self._closed_to = closed_to

    def read(self) -> Sequence[bytes]:
        """Return the keys; none when there is no file. Raises StartError for one that others may read or have made."""
        try:
            if (stranger := foreign_owner(self.path)) is not None:
                raise StartError(f"{self.path} belongs to user {stranger}, who knows its keys: delete it")
            if self.path.stat().st_mode & self._closed_to:
                raise StartError(f"{self.path} can be read by other users, so its keys are not secret: chmod 600 it")
            lines = self.path.read_text().split()
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise StartError(f"cannot read the keys in {self.path}: {error.strerror}") from error
        return [self._key(line) for line in lines]

    def add(self, key: bytes) -> None:
        """Put a key first, durably; nothing changes when it is there already."""
        known = self.read()
        if key in known:
            return
        content = "".join(f"{base64.b64encode(each).decode()}\n" for each in (key, *known))
        write_whole(self.path, content.encode(), durable=True)

    def _key(self, line: str) -> bytes:
        try:
            key = base64.b64decode(line, validate=True)
        except binascii.Error:
            key = b""
        if len(key) != KEY_BYTES:
            raise StartError(f"{self.path} has a line that is no key: each is {KEY_BYTES} bytes in base64")
        return key
