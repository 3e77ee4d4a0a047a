"""Who an agent is to git, so that it can commit. It has the lowest rank: a repository's own and a variable win."""

from collections.abc import Mapping
from typing import Final

NAME: Final = "BOATYARD_AUTHOR_NAME"
EMAIL: Final = "BOATYARD_AUTHOR_EMAIL"
"""The variables that have the author's name and address."""

# Git reads this file, and after it the one that `git config --global` makes, the repository's own and GIT_AUTHOR_NAME.
_FILE: Final = ".config/git/config"


def files(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the file in HOME that tells git the author in `environment`, if there is one."""
    if not (name := environment.get(NAME)) or not (email := environment.get(EMAIL)):
        return {}
    return {_FILE: f"[user]\n\tname = {_quoted(name)}\n\temail = {_quoted(email)}\n"}


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'
