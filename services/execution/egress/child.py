"""The runner's end of the proxy: it starts the proxy before the sandbox, connects the two, and reads decisions."""

import contextlib
import json
import os
import select
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import services
from services.execution.eventlog import EventKind, EventWriter
from services.sandbox.errors import SandboxUnavailableError
from services.sandbox.spec import AllowList

_ROOT = Path(services.__file__).parent.parent
_READY = b"READY"
_READY_WITHIN_S = 60.0
_REMEDY = "See the diary in the execution's run directory; or use network `none`"


def record(writer: EventWriter, decisions: list[dict[str, Any]]) -> None:
    """Append decisions to the events."""
    for fields in decisions:
        writer.fields(EventKind.NETWORK_DECISION, **fields)


class Egress:
    """One proxy process, for one sandbox."""

    def __init__(self, allow: AllowList, *, everything: bool) -> None:
        """Start the proxy, which waits for `open`. Call from the main thread: the proxy ends with it.

        With `everything`, all hosts are allowed on all ports, whatever `allow` names; addresses are not.
        """
        self.decisions, decisions = os.pipe()
        """Becomes readable when `read` has something to return."""
        os.set_blocking(self.decisions, False)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-s", "-m", "services.execution.egress"],
                env={**os.environ, "PYTHONPATH": str(_ROOT)},
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(decisions,),
                start_new_session=True,
            )
        except BaseException:
            os.close(self.decisions)
            raise
        finally:
            os.close(decisions)
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the proxy was started without pipes")
        self._input, self._output = self._process.stdin, self._process.stdout
        self._buffer = b""
        request = {"parent": os.getpid(), "decisions": decisions, "everything": everything, **asdict(allow)}
        self._input.write(json.dumps(request).encode() + b"\n")

    def open(self, init: int) -> None:
        """Have the proxy listen in the sandbox whose init has this pid; blocks for a tenth of a second.

        Raises SandboxUnavailableError.
        """
        with contextlib.suppress(BrokenPipeError):  # the proxy has ended, and its complaint is read below
            self._input.write(b"%d\n" % init)
        answer = b""
        while not answer.endswith(b"\n"):
            if not select.select([self._output], [], [], _READY_WITHIN_S)[0]:
                raise SandboxUnavailableError("The network proxy does not start", _REMEDY)
            chunk = os.read(self._output.fileno(), 4096)
            if not chunk:
                raise SandboxUnavailableError("The network proxy ended before it was ready", _REMEDY)
            answer += chunk
        if answer.strip() != _READY:
            raise SandboxUnavailableError(answer.decode(errors="replace").strip(), _REMEDY)

    def read(self) -> tuple[list[dict[str, Any]], bool]:
        """Return the decisions since the last call, as fields of a NetworkDecision, and whether more may follow."""
        more = True
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self.decisions, 65536):
                self._buffer += chunk
            more = False
        *lines, self._buffer = self._buffer.split(b"\n")
        return [json.loads(line) for line in lines], more

    def close(self) -> list[dict[str, Any]]:
        """End the proxy, and return the decisions that were not read yet."""
        self._process.kill()
        self._process.wait()
        decisions, _ = self.read()
        self._input.close()
        self._output.close()
        os.close(self.decisions)
        return decisions
