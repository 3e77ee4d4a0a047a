"""How git fails, in words that may be shown.

GitError
├── GitFailed        it exited with a code that was not expected
├── GitTimedOut      it was ended, because it took too long
└── OutputTooLarge   it was ended, because it said more than the caller can hold
"""

import re
from collections.abc import Iterable
from typing import Final

# git itself hides passwords in the URLs that it prints, but programs that it starts may not.
_USERINFO: Final = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/\s@]+@")
_HEADER: Final = re.compile(r"(?i)(authorization:\s*)\S+(\s+\S+)?")


def scrub(text: str, secrets: Iterable[str] = ()) -> str:
    """Return `text` without the given secrets, user information in URLs, and authorization headers."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "[hidden]")
    return _HEADER.sub(r"\1[hidden]", _USERINFO.sub(r"\1", text))


class GitError(Exception):
    """A git command did not do what it was asked for. Its text holds no secret."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class GitFailed(GitError):
    """Git exited with a code that the caller did not expect. `stderr` is the end of what it said, scrubbed."""

    def __init__(self, name: str, code: int, stderr: str) -> None:
        said = stderr.strip() or "it said nothing"
        super().__init__(name, f"git {name} failed with code {code}: {said}")
        self.code = code
        self.stderr = stderr


class GitTimedOut(GitError):
    """Git took longer than it was given, and was ended."""

    def __init__(self, name: str, seconds: float, stderr: str = "") -> None:
        super().__init__(name, f"git {name} was ended after {seconds:g} s: {stderr.strip() or 'it said nothing'}")
        self.stderr = stderr


class OutputTooLarge(GitError):
    """Git wrote more than the caller was ready to hold, and was ended."""

    def __init__(self, name: str, limit: int) -> None:
        super().__init__(name, f"git {name} wrote more than {limit} bytes")
        self.limit = limit
