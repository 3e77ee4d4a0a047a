"""Errors of git commands, in words that may be shown to callers.

GitError
├── GitFailed        it exited with an unexpected code
│   ├── GitOutOfMemory   a process of it wanted more memory than its limit
│   └── FileTooLarge     it wanted to write a file larger than its limit
├── GitTimedOut      it was ended because it took too long
├── GitSilent        it was ended because its remote had fallen silent
└── OutputTooLarge   it was ended because it wrote more than the caller accepts
"""

import re
from collections.abc import Iterable
from typing import Final

from services.sandbox.spec import Limits

# Git itself hides passwords in the URLs that it prints, but programs that it starts may not.
_USERINFO: Final = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/\s@]+@")
_OUT_OF_MEMORY: Final = ("Out of memory", "Cannot allocate memory")
_FILE_TOO_LARGE: Final = "File too large"
_HEADER: Final = re.compile(r"(?i)(authorization:\s*)\S+(\s+\S+)?")


def scrub(text: str, secrets: Iterable[str] = ()) -> str:
    """Return `text` without the given secrets, user information in URLs, and authorization headers."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "[hidden]")
    return _HEADER.sub(r"\1[hidden]", _USERINFO.sub(r"\1", text))


class GitError(Exception):
    """A git command failed. The text contains no secret."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class GitFailed(GitError):
    """Git exited with an unexpected code. `stderr` is the end of what it wrote there, scrubbed."""

    def __init__(self, name: str, code: int, stderr: str) -> None:
        message = stderr.strip() or "it said nothing"
        super().__init__(name, f"git {name} failed with code {code}: {message}")
        self.code = code
        self.stderr = stderr


class GitOutOfMemory(GitFailed):
    """Git, or a program that it started, wanted more memory than its limit."""


class FileTooLarge(GitFailed):
    """Git, or a program that it started, wanted to write a file larger than `limit` bytes."""

    def __init__(self, name: str, code: int, stderr: str, limit: int) -> None:
        super().__init__(name, code, stderr)
        self.limit = limit


def failure_within(limits: Limits, name: str, code: int, stderr: str) -> GitFailed:
    """Return the error of a git that ran under limits and failed: by one of them, if its words say so."""
    if any(words in stderr for words in _OUT_OF_MEMORY):
        return GitOutOfMemory(name, code, stderr)
    if _FILE_TOO_LARGE in stderr:
        return FileTooLarge(name, code, stderr, limits.file_size_bytes or 0)
    return GitFailed(name, code, stderr)


class GitTimedOut(GitError):
    """Git took longer than allowed, and was ended."""

    def __init__(self, name: str, seconds: float, stderr: str = "") -> None:
        super().__init__(name, f"git {name} was ended after {seconds:g} s: {stderr.strip() or 'it said nothing'}")
        self.stderr = stderr


class GitSilent(GitError):
    """Git heard nothing of its remote for longer than allowed, and was ended."""

    def __init__(self, name: str, seconds: float, stderr: str = "") -> None:
        said = stderr.strip() or "it said nothing before"
        super().__init__(name, f"git {name} was ended after {seconds:g} s in which nothing came or went: {said}")
        self.stderr = stderr


class OutputTooLarge(GitError):
    """Git wrote more than the caller accepts, and was ended."""

    def __init__(self, name: str, limit: int) -> None:
        super().__init__(name, f"git {name} wrote more than {limit} bytes")
        self.limit = limit
