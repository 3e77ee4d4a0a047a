"""What git calls a commit."""

import re
from typing import Final

_COMMIT_ID: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def is_commit_id(text: str) -> bool:
    """True when `text` is a full object id in lower case."""
    return _COMMIT_ID.fullmatch(text) is not None
