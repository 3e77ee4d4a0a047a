"""Who an agent is to git, so that it can commit. It has the lowest rank: a repository's own and a variable win."""

from collections.abc import Mapping
from typing import Final

NAME: Final = "BOATYARD_AUTHOR_NAME"
EMAIL: Final = "BOATYARD_AUTHOR_EMAIL"
"""The variables that have the author's name and address."""

# Without variables of its own, which would take the place of the agent's of that name. Git reads this file,
# and after it the one that `git config --global` makes, the repository's own and GIT_AUTHOR_NAME.
_WRITE: Final = """
set -- "$HOME/.config/git" "$@"
[ -e "$1/config" ] || { mkdir -p "$1" && printf '%s' "$2" >"$1/config"; } 2>/dev/null
shift 2; exec "$@"
"""


def before(argv: tuple[bytes, ...], environment: Mapping[str, str]) -> tuple[bytes, ...]:
    """Return a program that tells git the author in `environment`, if there is one, and becomes that of `argv`.

    A HOME that the environment names is somebody's own, and stays as it is.
    """
    if not (name := environment.get(NAME)) or not (email := environment.get(EMAIL)) or "HOME" in environment:
        return argv
    config = f"[user]\n\tname = {_quoted(name)}\n\temail = {_quoted(email)}\n"
    return (b"/bin/sh", b"-c", _WRITE.encode(), b"sh", config.encode(), *argv)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'
