"""What git calls a commit, and what we call those of a remote that are on no branch."""

import re
from typing import Final

SINGLE_COMMITS: Final = "refs/upstream/commits/"
"""The refs of commits on no branch that were asked for by id or name: of forks, of removed branches, of requests."""

_COMMIT_ID: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def is_commit_id(text: str) -> bool:
    """True when `text` is a full object id in lower case."""
    return _COMMIT_ID.fullmatch(text) is not None
