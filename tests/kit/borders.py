"""Runs the command line where its streams or its directory are broken: and in an ASCII locale.

As a program it reads command lines from standard input, as JSON, and writes what became of each. A process for each
would take half a second; here everything is imported once, and each is a fork.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.cli import main
from services.cli.exit_codes import NO_READER

CONDITIONS = ("sound", "full", "closed", "unread", "all closed", "mute", "gone")
"""Standard output is full, closed or read by nobody; all streams are closed; standard error is full; the working
directory was deleted."""

_ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a command ended: what it wrote is known where the condition left it its stream."""

    arguments: tuple[str, ...]
    condition: str
    code: int
    output: str
    messages: str


def endings(lines: Sequence[Sequence[str]], environment: Mapping[str, str]) -> list[Ending]:
    """Run each command line under each condition."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.kit.borders"],
        input=json.dumps(list(lines)).encode(),
        env={**environment, **_ASCII},
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        check=True,
        timeout=300,
    )
    return [Ending(tuple(one.pop("arguments")), **one) for one in json.loads(result.stdout)]


_FAULTS = ("Traceback", "Exception ignored", "never retrieved", "fault of Boatyard")


def _complaint(ending: Ending, would_write: bool) -> str:
    """What is wrong with how a command ended; `would_write` if it writes to standard output that is sound."""
    if any(word in ending.messages for word in _FAULTS) or ending.code not in (0, 1, 2, 4, NO_READER):
        return "a fault"
    if not would_write:
        return ""
    match ending.condition:
        case "full" | "closed":
            *_, last = ending.messages.splitlines()
            said = "standard output cannot be written" in last
            return "" if said and ending.code == 1 else "not said"
        case "all closed":
            return "" if ending.code == 1 else "not said"
        case "unread":
            return "" if ending.code == NO_READER and "output cannot be" not in ending.messages else "more than silence"
    return ""


def complaints(found: Sequence[Ending]) -> list[tuple[str, Ending]]:
    """What is wrong with how commands ended."""
    writing = {ending.arguments for ending in found if ending.condition == "sound" and ending.output}
    return [(text, ending) for ending in found if (text := _complaint(ending, ending.arguments in writing))]


def _run(arguments: Sequence[str], condition: str) -> dict[str, object]:
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as messages, tempfile.TemporaryFile() as empty:
        child = os.fork()
        if child == 0:
            _become(arguments, condition, (empty.fileno(), output.fileno(), messages.fileno()))
        _, status = os.waitpid(child, 0)
        texts = [os.pread(file.fileno(), 1 << 20, 0).decode("utf-8", "replace") for file in (output, messages)]
    code = os.waitstatus_to_exitcode(status)
    return {"arguments": arguments, "condition": condition, "code": code, "output": texts[0], "messages": texts[1]}


def _become(arguments: Sequence[str], condition: str, files: Sequence[int]) -> None:
    for number, file in enumerate(files):
        os.dup2(file, number)
    _BREAKS.get(condition, lambda: None)()
    names = ("stdin", "stdout", "stderr")
    for number, name in enumerate(names):
        setattr(sys, name, _opened(number, "r" if number == 0 else "w"))
    sys.argv = ["boatyard", *arguments]
    code: object = 70
    try:
        main.main()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.exit = os._exit
        os._exit(code if isinstance(code, int) else 71)


def _opened(number: int, mode: str) -> object:
    try:
        return open(number, mode, encoding="ascii", closefd=False)
    except OSError:
        return None


def _unread() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, 1)


def _gone() -> None:
    directory = tempfile.mkdtemp()
    os.chdir(directory)
    Path(directory).rmdir()


_BREAKS: dict[str, Callable[[], object]] = {
    "full": lambda: os.dup2(os.open("/dev/full", os.O_WRONLY), 1),
    "closed": lambda: os.close(1),
    "unread": _unread,
    "all closed": lambda: os.closerange(0, 3),
    "mute": lambda: os.dup2(os.open("/dev/full", os.O_WRONLY), 2),
    "gone": _gone,
}


def _all() -> None:
    for name in main.COMMANDS:
        importlib.import_module(f"services.cli.commands.{name.replace('-', '_')}")
    lines = json.load(sys.stdin)
    results = [_run(arguments, condition) for arguments in lines for condition in CONDITIONS]
    os.write(1, json.dumps(results).encode())


if __name__ == "__main__":
    _all()
