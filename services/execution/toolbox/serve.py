"""Takes calls from standard input, one at a time, and answers them on standard output.

    call   = {"id": n, "tool": name, "input": {...}}
    answer = {"id": n, "output": text, "is_error": bool}        after {"ready": true} at the start

Processes that tools start inherit neither: they could forge answers, and a daemon would hold them open.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

from services.execution.toolbox import files, search
from services.execution.toolbox.answer import ToolError, clipped
from services.execution.toolbox.shell import Shell

_FILE_SECONDS = 30

Input = Mapping[str, Any]


def main() -> None:
    """Serve until the end of standard input."""
    calls, answers = _take_standard_streams()
    shell = Shell()
    tools: dict[str, Callable[[Input], str]] = {
        "bash": shell.call,
        "view": _bounded(files.view),
        "create": _bounded(files.create),
        "replace": _bounded(files.replace),
        "insert": _bounded(files.insert),
        "search": _bounded(search.search),
    }
    _send(answers, {"ready": True})
    for line in calls:
        call = json.loads(line)
        output, is_error = _answer(tools, call["tool"], call["input"])
        _send(answers, {"id": call["id"], "output": output, "is_error": is_error})
    shell.end()


def _answer(tools: Mapping[str, Callable[[Input], str]], tool: str, arguments: Input) -> tuple[str, bool]:
    if tool not in tools:
        return f"there is no tool {tool!r}; there are {', '.join(tools)}", True
    try:
        return clipped(tools[tool](arguments)), False
    except ToolError as error:
        return clipped(str(error)), True
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror or error}{where}", True
    except Exception as error:  # noqa: BLE001 - whatever a call raises, the next one must be served
        return f"{tool} broke: {type(error).__name__}: {error}", True


def _bounded(tool: Callable[[Input], str]) -> Callable[[Input], str]:
    """Limit the time of a tool that runs in this process: a pattern may take years, a file may be on a dead disk."""

    def with_alarm(arguments: Input) -> str:
        with _alarm(_FILE_SECONDS):
            return tool(arguments)

    return with_alarm


@contextmanager
def _alarm(seconds: int) -> Iterator[None]:
    def give_up(*_: object) -> None:
        raise ToolError(f"it took longer than {seconds} s, and was given up")

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def _take_standard_streams() -> tuple[BinaryIO, BinaryIO]:
    """Keep standard input and output for this program; what tools start reads nothing, and writes to standard error."""
    calls, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    sys.stdin = sys.stdout = None
    return calls, answers


def _send(answers: BinaryIO, message: Mapping[str, object]) -> None:
    answers.write(json.dumps(message).encode() + b"\n")
    answers.flush()
