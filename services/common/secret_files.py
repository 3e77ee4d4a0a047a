"""Secrets that are given as files, as container engines and orchestrators mount them: `NAME_FILE` instead of `NAME`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from services.common.errors import StartError

SECRETS: Final = (
    *("ANTHROPIC_API_KEY", "GEMINI_API_KEY", "OPENAI_API_KEY"),
    *("BOATYARD_DATABASE_LISTEN_URL", "BOATYARD_DATABASE_URL", "BOATYARD_TOKEN"),
)
"""The variables whose values may be in files."""


def with_secret_files(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which the contents of these files are the variables' values; an empty file sets none.

    Spaces and line breaks around a value are left out.

    Raises:
        StartError: a file cannot be read, or a variable is set in both ways.
    """
    result = dict(environment)
    for name in SECRETS:
        if not (path := result.pop(f"{name}_FILE", "")):
            continue
        if result.get(name):
            raise StartError(f"{name} and {name}_FILE are both set: leave one of them out")
        try:
            value = Path(path).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise StartError(f"{name}_FILE: {path} cannot be read: {error}") from error
        if value:
            result[name] = value
    return result
