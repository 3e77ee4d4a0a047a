"""What a remote may take of this machine: it is not trusted, and what git needs for it is what it says and sends."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from services.git.gitcmd import Invocation
from services.sandbox.spec import Limits

# A million refs take 300 MiB of memory and 64 MiB of text.
_LISTING_MEMORY_BYTES: Final = 512 << 20
_LISTING_BYTES: Final = 64 << 20
_LISTING_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class NetworkLimits:
    """Limits of one command that speaks to a remote.

    It ends after `seconds`, or `silence_seconds` in which nothing comes or goes. `memory_bytes` holds for each process,
    and `fetch_bytes` for what is fetched; `min_free_bytes` stay free.
    """

    seconds: float = 1800
    silence_seconds: float = 50
    memory_bytes: int = 4 << 30
    fetch_bytes: int = 16 << 30
    min_free_bytes: int = 256 << 20

    def listing(self, invocation: Invocation) -> Invocation:
        """Limit a command that asks for a remote's refs: nothing is written."""
        return replace(
            invocation,
            timeout_seconds=min(self.seconds, _LISTING_SECONDS),
            silence_seconds=self.silence_seconds,
            output_limit=_LISTING_BYTES,
            limits=Limits(data_bytes=min(self.memory_bytes, _LISTING_MEMORY_BYTES)),
        )

    def fetching(self, invocation: Invocation, directory: Path) -> Invocation:
        """Limit a command that writes what a remote sends, one pack, into a directory."""
        room = shutil.disk_usage(directory).free - self.min_free_bytes
        limits = Limits(data_bytes=self.memory_bytes, file_size_bytes=max(0, min(self.fetch_bytes, room)))
        return self._timed(invocation, limits)

    def pushing(self, invocation: Invocation) -> Invocation:
        """Limit a command that sends objects to a remote, and reads what it says."""
        return self._timed(invocation, Limits(data_bytes=self.memory_bytes))

    def _timed(self, invocation: Invocation, limits: Limits) -> Invocation:
        return replace(invocation, timeout_seconds=self.seconds, silence_seconds=self.silence_seconds, limits=limits)
