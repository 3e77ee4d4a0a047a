"""Which names may be passed to git: branches, revisions, commit ids. A complaint is None when the name is allowed."""

import re
from typing import Final

MAX_BRANCH_BYTES: Final = 244
_COMMIT_ID: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
# What git check-ref-format forbids anywhere in a name.
_FORBIDDEN: Final = re.compile(rb"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")


def is_commit_id(text: str) -> bool:
    """True when `text` is a full object id in lower case."""
    return _COMMIT_ID.fullmatch(text) is not None


def branch_complaint(name: bytes) -> str | None:
    """Return why git allows no branch of this name, by the rules of `git check-ref-format --branch`."""
    if not name:
        return "must not be empty"
    if len(name) > MAX_BRANCH_BYTES:
        return f"must not be longer than {MAX_BRANCH_BYTES} bytes"
    if name.startswith(b"-") or name in {b"HEAD", b"@"}:
        return "must not begin with a dash, nor be HEAD or @"
    if _FORBIDDEN.search(name):
        return "must not hold spaces, control characters, '..', '@{', '//' or one of ~^:?*[\\"
    parts = name.split(b"/")
    if any(not part or part.startswith(b".") or part.endswith(b".lock") for part in parts) or name.endswith(b"."):
        return "no part of it may be empty, begin with a dot or end with '.lock', nor may it end with a dot"
    return None


def revision_complaint(revision: bytes) -> str | None:
    """Return why this cannot be a branch, tag or commit id. Expressions such as `main~3` are not allowed."""
    if revision in {b"HEAD", b""}:
        return None
    short = revision.removeprefix(b"refs/heads/").removeprefix(b"refs/tags/").removeprefix(b"refs/remotes/origin/")
    return branch_complaint(short)
