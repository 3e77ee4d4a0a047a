"""What the door may hold of requests and answers at once, over all of its connections."""

from types import TracebackType
from typing import Final, Self

MOST_BYTES: Final = 128 << 20


class Memory:
    """Counts bytes that are held, up to a maximum."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._left = most

    def take(self, count: int) -> bool:
        """Count that many more, if they fit."""
        if count > self._left:
            return False
        self._left -= count
        return True

    def give(self, count: int) -> None:
        """Count that many less."""
        self._left += count


class Held:
    """Bytes that are kept together, and counted; leaving the context gives them up."""

    def __init__(self, memory: Memory, most: int) -> None:
        self._memory = memory
        self._most = most
        self.data = bytearray()

    def add(self, data: bytes) -> bool:
        """Keep more bytes; False when there is no room for them, and they are not kept."""
        if len(self.data) + len(data) > self._most or not self._memory.take(len(data)):
            return False
        self.data += data
        return True

    def clear(self) -> None:
        """Give up what is kept."""
        self._memory.give(len(self.data))
        self.data = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()
