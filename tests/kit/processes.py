"""The host's processes, read from /proc."""

import base64
from collections.abc import Iterable
from pathlib import Path


def _read(pid: str, name: str) -> bytes:
    try:
        return (Path("/proc") / pid / name).read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""


def _pids() -> list[str]:
    return [entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def with_environment(variables: dict[str, str]) -> dict[int, str]:
    """Return {pid: command line} of the processes whose environment has all of `variables`."""
    entries = {f"{key}={value}".encode() for key, value in variables.items()}
    return {
        int(pid): _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace")
        for pid in _pids()
        if entries <= set(_read(pid, "environ").split(b"\0"))
    }


def matching(module: str, environment: dict[str, str]) -> list[int]:
    """Return the processes that run `python -m MODULE` with this environment, or seem to (see `children`)."""
    return [pid for pid, line in with_environment(environment).items() if line.rstrip().endswith(f"-m {module}")]


def children(parent: int, module: str) -> list[int]:
    """Return the children of `parent` that run `python -m MODULE`.

    Others may seem to: between vfork and exec, a process that a service starts has the service's command line.
    """
    return [
        int(pid)
        for pid in _pids()
        if _read(pid, "cmdline").rstrip(b"\0").endswith(f"-m\0{module}".encode())
        and _read(pid, "stat").rpartition(b")")[2].split()[1:2] == [b"%d" % parent]
    ]


def with_descendants(roots: Iterable[int]) -> list[int]:
    """Return processes and all of their descendants that have not been reparented."""
    children: dict[int, list[int]] = {}
    for pid in _pids():
        parent = _read(pid, "stat").rpartition(b")")[2].split()[1:2]
        if parent:
            children.setdefault(int(parent[0]), []).append(int(pid))
    visited: dict[int, None] = {}
    pending = list(roots)
    while pending:
        pid = pending.pop()
        if pid not in visited:
            visited[pid] = None
            pending += children.get(pid, ())
    return list(visited)


def command_lines() -> list[bytes]:
    """Return the arguments of all processes, as every user of the machine sees them."""
    return [_read(pid, "cmdline") for pid in _pids()]


def with_marker(marker: str) -> list[int]:
    """Return the processes with `marker` in their command line or environment."""
    return [int(pid) for pid in _pids() if marker.encode() in _read(pid, "cmdline") + _read(pid, "environ")]


def event_bytes(event: dict) -> bytes:
    """Return the bytes of an `output` event of the command line's JSON."""
    if "data_base64" in event:
        return base64.b64decode(event["data_base64"])
    return event["data"].encode()


def environment(pid: int) -> dict[str, str]:
    """Return the environment that a process was started with."""
    entries = _read(str(pid), "environ").decode(errors="replace").split("\0")
    return {name: value for name, _, value in (entry.partition("=") for entry in entries if entry)}
