"""Searching files with a regular expression."""

import fnmatch
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from services.execution.toolbox.answer import ToolError, number_of, text_of

_MAX_BYTES = 4 * 1024 * 1024
_LINE_CHARACTERS = 300
_SKIPPED = {".git", "node_modules", "__pycache__", ".venv"}


def search(arguments: Mapping[str, Any]) -> str:
    """Return the lines below `path` that match `pattern`, as `path:number:line`, in files whose names match `glob`."""
    try:
        pattern = re.compile(text_of(arguments, "pattern"))
    except re.error as error:
        raise ToolError(f"pattern is no regular expression of Python's: {error}") from None
    top, glob = Path(text_of(arguments, "path", ".")), text_of(arguments, "glob", "*")
    max_results = number_of(arguments, "max_results", 200, 1, 1000)
    if not top.exists():
        raise ToolError(f"{top} is not there")
    matches: list[str] = []
    for path in _files(top, glob):
        for number, line in enumerate(_lines(path), start=1):
            if pattern.search(line):
                if len(matches) == max_results:
                    return "\n".join([*matches, f"[only the first {max_results} are shown]"])
                matches.append(f"{path}:{number}:{line[:_LINE_CHARACTERS]}")
    return "\n".join(matches) or "nothing matches"


def _files(top: Path, glob: str) -> Iterator[Path]:
    if not top.is_dir():
        yield top
        return
    for directory, names, files in os.walk(top):
        names[:] = sorted(set(names) - _SKIPPED)
        for name in sorted(files):
            path = Path(directory, name)
            relative = path.relative_to(top)
            if (fnmatch.fnmatch(name, glob) or fnmatch.fnmatch(str(relative), glob)) and path.is_file():
                yield path


def _lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            return []
        content = path.read_bytes()
    except OSError:  # unreadable, or just removed: the other files are searched nonetheless
        return []
    return [] if b"\0" in content[:8192] else content.decode("utf-8", "replace").splitlines()
