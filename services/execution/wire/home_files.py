"""Files that a program finds in its HOME, made by a shell before the program begins, unless they are there already."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Final

# Without variables of its own, which would take the place of the agent's of that name.
_WRITE: Final = """
while [ "$1" != -- ]; do
  [ -e "$HOME/$2" ] || { mkdir -p "$HOME/$1" && printf '%s' "$3" >"$HOME/$2"; } 2>/dev/null; shift 3
done; shift; exec "$@"
"""


def before(argv: tuple[bytes, ...], files: Mapping[str, str]) -> tuple[bytes, ...]:
    """Return a program that makes the files, by their paths below HOME, and becomes that of `argv`.

    Files that there are already stay as they are.
    """
    if not files:
        return argv
    told = [part for path, text in files.items() for part in (str(PurePosixPath(path).parent), path, text)]
    return (b"/bin/sh", b"-c", _WRITE.encode(), b"sh", *(part.encode() for part in (*told, "--")), *argv)
