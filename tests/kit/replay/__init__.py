"""A model that plays scripts, with faults on request: a server of the Messages API, as a process of its own.

It speaks real HTTP, so its clients do everything that they do with the API. See `script` for the files.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Replay:
    url: str
    log: Path
    process: subprocess.Popen[bytes]

    def requests(self) -> list[dict]:
        """Return its requests in order: {"reply", "attempt", "fault", "message_id", "time"}."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def bash(command: str, **arguments: object) -> dict:
    """Return a call of the shell tool."""
    return {"name": "bash", "input": {"command": command, **arguments}}


def write_script(path: Path, replies: Sequence[dict], **head: object) -> Path:
    """Write a script: each reply has the fields of tests.kit.replay.script."""
    lines = [f"{name} = {_toml(value)}" for name, value in {"origin": "scripted", **head}.items()]
    for reply in replies:
        lines += ["[[reply]]", *(f"{name} = {_toml(value)}" for name, value in reply.items())]
    path.write_text("\n".join(lines) + "\n")
    return path


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(item)}" for name, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


@contextmanager
def replaying(directory: Path, *scripts: Path, key: str = "") -> Iterator[Replay]:
    """Run the server inside of the block."""
    log = directory / "replay.log"
    arguments = ["--log", str(log), *(["--key", key] if key else [])]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.kit.replay", *map(str, scripts), *arguments], stdout=subprocess.PIPE
    )
    assert process.stdout
    try:
        ready = process.stdout.readline().decode().split()
        assert ready[:1] == ["ready"], ready
        yield Replay(ready[1], log, process)
    finally:
        process.terminate()
        process.wait(timeout=20)
        process.stdout.close()
