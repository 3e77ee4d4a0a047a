"""The commit without files that work on nothing is compared with: the same on every machine.

Work begins on nothing without a remote, and on a remote that has no commit yet. This commit stands for that wherever a
commit is named, and is nobody's parent: what is made of nothing begins a history.
"""

import hashlib
import zlib
from pathlib import Path
from typing import Final

_SIGNATURE: Final = b"Boatyard <noreply@boatyard.dev> 0 +0000"


def _named(kind: bytes, body: bytes) -> tuple[str, bytes]:
    """Return the name of a git object, and what git keeps of it."""
    content = b"%b %d\0%b" % (kind, len(body), body)
    return hashlib.sha1(content, usedforsecurity=False).hexdigest(), content


_TREE: Final = _named(b"tree", b"")
_COMMIT: Final = _named(
    b"commit",
    b"tree %b\nauthor %b\ncommitter %b\n\nNothing yet\n" % (_TREE[0].encode(), _SIGNATURE, _SIGNATURE),
)
EMPTY_COMMIT_ID: Final = _COMMIT[0]


def write_empty_commit(objects: Path) -> None:
    """Write the commit and its tree to a directory of objects."""
    for name, content in (_TREE, _COMMIT):
        path = objects / name[:2] / name[2:]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(zlib.compress(content))
