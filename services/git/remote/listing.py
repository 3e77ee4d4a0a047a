"""What a remote says that it has, before anything of it is fetched."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from services.git.gitcmd import Command, Git, Invocation
from services.git.remote.addresses import Address
from services.git.remote.http_answers import run_connected

_KEPT: Final = (b"refs/heads/", b"refs/tags/")
# What git refuses in a name would make it refuse the whole fetch.
_MALFORMED: Final = re.compile(rb"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(/|$)|[./]$")


@dataclass(frozen=True, slots=True)
class RemoteListing:
    """A remote's branches and tags by their full names, and its HEAD.

    `head` is the ref that HEAD points to (empty: it is detached); `has_head` tells whether it leads to a commit.
    """

    head: bytes
    has_head: bool
    refs: frozenset[bytes]

    def wanted(self, asked: Collection[bytes], most: int) -> list[bytes]:
        """Return what to fetch: everything, or of more than `most` refs HEAD's branch and those that were asked for."""
        return sorted(self.refs if len(self.refs) <= most else self.refs & {self.head, *asked})


async def list_remote(git: Git, address: Address, invocation: Invocation) -> RemoteListing:
    """Ask a remote for its HEAD, branches and tags. `invocation` is limited as `NetworkLimits.listing` does.

    Raises:
        GitError: it cannot be asked, says too much, or takes too long.
    """
    patterns = (b"HEAD", *(prefix + b"*" for prefix in _KEPT))
    lines = await ask_remote(git, address, invocation, patterns)
    head, names = b"", set[bytes]()
    for line in lines:
        value, _, name = line.partition(b"\t")
        if name == b"HEAD" and value.startswith(b"ref: "):
            head = value.removeprefix(b"ref: ")
        elif name == b"HEAD" or (name.startswith(_KEPT) and not _MALFORMED.search(name)):
            names.add(name)
    return RemoteListing(head, b"HEAD" in names, frozenset(names - {b"HEAD"}))


async def ask_remote(git: Git, address: Address, invocation: Invocation, patterns: Collection[bytes]) -> list[bytes]:
    """Return what `git ls-remote --symref` prints for patterns, in lines. Raises the errors of `list_remote`."""
    async with address.reading(invocation) as remote:
        listing = Command("ls-remote", ("--symref", *remote.flags), (remote.url, *patterns))
        return (await run_connected(git, listing, remote)).stdout.splitlines()
