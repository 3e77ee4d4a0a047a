"""Pointers of Git LFS: what a commit holds in place of the content of a file that .gitattributes gives to it.

https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md says what is one.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

POINTER_BYTES: Final = 1024
"""No pointer is longer."""
# Keys beside the version are in alphabetical order. Before its first version, the format had another address.
_POINTER: Final = re.compile(
    rb"version https://(git-lfs\.github\.com|hawser\.github\.com)/spec/v1\n(ext-\d-[^ \n]+ [^\n]+\n)*"
    rb"oid sha256:(?P<oid>[0-9a-f]{64})\nsize (?P<size>\d{1,19})\n?"
)


@dataclass(frozen=True, slots=True, order=True)
class Pointer:
    """The SHA-256 of a content, in hexadecimal, and its size in bytes."""

    oid: str
    size: int

    @property
    def text(self) -> bytes:
        """The pointer as a commit has it."""
        return b"version https://git-lfs.github.com/spec/v1\noid sha256:%b\nsize %d\n" % (self.oid.encode(), self.size)


def parse_pointer(content: bytes) -> Pointer | None:
    """Return the pointer that a content is; None when it is something else."""
    found = _POINTER.fullmatch(content) if len(content) <= POINTER_BYTES else None
    return Pointer(found["oid"].decode(), int(found["size"])) if found else None


def batch_contents(answer: bytes) -> Iterator[bytes]:
    """Yield the contents that `cat-file --batch=%(objectsize)` prints. One may look like an answer about another."""
    at = 0
    while at < len(answer):
        start = answer.index(b"\n", at) + 1
        at = start + int(answer[at:start])
        yield answer[start:at]
        at += 1
