"""The runner's end of the proxy: it is started before the sandbox, told of it, and read from."""

import contextlib
import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import services
from services.execution.eventlog import EventWriter, Kind
from services.sandbox.errors import SandboxUnavailableError
from services.sandbox.spec import AllowList

_ROOT = Path(services.__file__).parent.parent
_READY = b"READY"
_READY_WITHIN_S = 60.0
_MEND = "See the diary in the execution's run directory; or use network `none` or `open`"


def record(writer: EventWriter, decisions: list[dict[str, Any]]) -> None:
    """Append decisions to the events."""
    for fields in decisions:
        writer.fields(Kind.NETWORK_DECISION, **fields)


class Egress:
    """One proxy process, for one sandbox."""

    def __init__(self, allow: AllowList) -> None:
        """Start it; it waits for `open`. Call from the main thread, whose end is its own."""
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-s", "-m", "services.execution.egress"],
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the proxy was started without pipes")
        self._told, self._said = self._process.stdin, self._process.stdout
        self.decisions = self._said.fileno()
        """Becomes readable when there is something for `read`."""
        self._buffer = b""
        asked = {"parent": os.getpid(), "hosts": allow.hosts, "addresses": allow.addresses}
        self._told.write(json.dumps(asked).encode() + b"\n")

    def open(self, init: int) -> None:
        """Have it listen in the sandbox whose init has this pid; blocks for a tenth of a second.

        Raises SandboxUnavailableError.
        """
        with contextlib.suppress(BrokenPipeError):  # it has ended, and its complaint is read below
            self._told.write(b"%d\n" % init)
        while b"\n" not in self._buffer:
            if not select.select([self.decisions], [], [], _READY_WITHIN_S)[0]:
                raise SandboxUnavailableError("The network's proxy does not start", _MEND)
            chunk = os.read(self.decisions, 4096)
            if not chunk:
                raise SandboxUnavailableError("The network's proxy ended before it began", _MEND)
            self._buffer += chunk
        first, _, self._buffer = self._buffer.partition(b"\n")
        if first != _READY:
            raise SandboxUnavailableError(first.decode(errors="replace"), _MEND)
        os.set_blocking(self.decisions, False)

    def read(self) -> tuple[list[dict[str, Any]], bool]:
        """What was decided since the last time, as fields of a NetworkDecision, and whether more may come."""
        more = True
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self.decisions, 65536):
                self._buffer += chunk
            more = False
        *lines, self._buffer = self._buffer.split(b"\n")
        return [json.loads(line) for line in lines], more

    def close(self) -> list[dict[str, Any]]:
        """End it, and return what was still to be read."""
        self._process.kill()
        self._process.wait()
        left, _ = self.read()
        self._told.close()
        self._said.close()
        return left
