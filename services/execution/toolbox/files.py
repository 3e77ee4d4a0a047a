"""Viewing and changing files. Paths may be relative to the workspace; the sandbox decides what they can reach."""

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from services.execution.toolbox.answer import MAX_CHARACTERS, ToolError, number_of, text_of

_MAX_BYTES = 8 * 1024 * 1024
_MAX_ENTRIES = 500
_SNIPPET_LINES = 4


def view(arguments: Mapping[str, Any]) -> str:
    """Show a file with line numbers, from `first_line` to `last_line`, or a directory's files, two levels deep."""
    path = _path(arguments)
    if path.is_dir():
        return _listing(path)
    lines = _read(path).splitlines()
    first = number_of(arguments, "first_line", 1, 1, 10**9)
    last = number_of(arguments, "last_line", 10**9, 1, 10**9)
    if first > max(1, len(lines)):
        raise ToolError(f"{path} has only {len(lines)} lines")
    return _numbered(lines, first, min(last, len(lines)))


def create(arguments: Mapping[str, Any]) -> str:
    """Write a whole file, replacing an existing one, and make the directories above it."""
    path, text = _path(arguments), text_of(arguments, "content")
    path.parent.mkdir(parents=True, exist_ok=True)
    existed = path.exists()
    _write(path, text)
    return f"{'wrote' if existed else 'created'} {path}, {len(text.splitlines())} lines"


def replace(arguments: Mapping[str, Any]) -> str:
    """Replace a piece of a file that occurs in it exactly once."""
    path, old, new = _path(arguments), text_of(arguments, "old"), text_of(arguments, "new")
    text = _read(path)
    count = text.count(old) if old else 0
    if count != 1:
        problem = "is empty" if not old else f"stands there {count} times" if count else "does not stand there"
        raise ToolError(f"nothing was changed in {path}: `old` {problem}, and must stand there once, spaces and all")
    line = text[: text.index(old)].count("\n") + 1
    changed = text.replace(old, new, 1)
    _write(path, changed)
    return _around(path, changed, line, line + new.count("\n"))


def insert(arguments: Mapping[str, Any]) -> str:
    """Insert lines after a line; after line 0 they become the first."""
    path, new = _path(arguments), text_of(arguments, "text")
    lines = _read(path).splitlines(keepends=True)
    after = number_of(arguments, "after_line", -1, 0, len(lines))
    if after and not lines[after - 1].endswith("\n"):
        lines[after - 1] += "\n"
    changed = "".join([*lines[:after], new if new.endswith("\n") else new + "\n", *lines[after:]])
    _write(path, changed)
    return _around(path, changed, after + 1, after + len(new.splitlines()))


def _path(arguments: Mapping[str, Any]) -> Path:
    path = text_of(arguments, "path")
    if not path or "\0" in path:
        raise ToolError("path must not be empty, nor hold a NUL character")
    return Path(path)


def _read(path: Path) -> str:
    """Read a text file; bytes that are not UTF-8 are written back unchanged by `_write`."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # otherwise opening a named pipe would block
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ToolError(f"{path} is no regular file")
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ToolError(f"{path} has more than {_MAX_BYTES >> 20} MiB: look at parts of it with bash")
    if b"\0" in content[:8192]:
        raise ToolError(f"{path} is a binary file: look at it with bash")
    return content.decode("utf-8", "surrogateescape")


def _write(path: Path, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    with os.fdopen(fd, "wb") as file:
        file.write(text.encode("utf-8", "surrogateescape"))


def _numbered(lines: list[str], first: int, last: int) -> str:
    shown: list[str] = []
    size = 0
    for number in range(first, last + 1):
        line = f"{number:6}\t{lines[number - 1]}"
        size += len(line) + 1
        if size > MAX_CHARACTERS - 200 and shown:
            return "\n".join([*shown, f"[lines {number} to {len(lines)} left out: ask for them by first_line]"])
        shown.append(line)
    return "\n".join(shown) or "(the file is empty)"


def _around(path: Path, text: str, first: int, last: int) -> str:
    lines = text.splitlines()
    begin, end = max(1, first - _SNIPPET_LINES), min(len(lines), last + _SNIPPET_LINES)
    return f"changed {path}:\n{_numbered(lines, begin, end)}"


def _listing(directory: Path) -> str:
    entries: list[str] = []
    for entry in _entries(directory, 2):
        if len(entries) == _MAX_ENTRIES:
            return "\n".join([*entries, f"[only the first {_MAX_ENTRIES} are shown]"])
        entries.append(entry)
    return "\n".join(entries) or "(the directory is empty)"


def _entries(directory: Path, levels: int) -> Iterator[str]:
    for path in sorted(directory.iterdir()):
        is_directory = path.is_dir() and not path.is_symlink()
        yield f"{path}/" if is_directory else str(path)
        if is_directory and levels > 1 and path.name != ".git":
            yield from _entries(path, levels - 1)
