"""What a revision means in a mirror: its refs and commits, as they were when it was last fetched."""

import re
from dataclasses import dataclass
from typing import Final

from services.git.gitcmd import Command, Git, Invocation
from services.git.names import SINGLE_COMMITS
from services.git.paths import GitPaths
from services.git.stores.repository import commit_of

# The ref in which a mirror keeps the remote's HEAD, which may be on no branch.
HEAD_REF: Final = b"refs/upstream/HEAD"
DEFAULT: Final = frozenset({b"", b"HEAD"})
_DEFAULTS: Final = (HEAD_REF, b"refs/heads/main", b"refs/heads/master")
_REF_FORMAT: Final = "%(refname) %(objecttype) %(objectname)"
# Where a mirror keeps what somebody asked for by its full name and is neither branch nor tag, such as refs/pull/1/head.
NAMED: Final = f"{SINGLE_COMMITS}named/".encode()
_ABBREVIATED: Final = re.compile(rb"[0-9a-f]{7,63}")


@dataclass(frozen=True, slots=True)
class ResolvedRevision:
    """A commit, and its branch: the one that was asked for, or else the default branch."""

    commit_id: str
    branch: bytes


class Revisions:
    """Reads the refs of mirrors."""

    def __init__(self, git: Git, paths: GitPaths) -> None:
        self._git = git
        self._paths = paths

    async def is_empty(self, repository_id: str) -> bool:
        """True when the remote had neither a branch nor a tag, nor a detached HEAD, when it was last fetched."""
        command = Command("for-each-ref", ("--format=%(refname)",), (HEAD_REF, "refs/heads/", "refs/tags/"))
        listing = await self._git.run(command, Invocation(git_dir=self._paths.mirror(repository_id)))
        return not listing.stdout

    async def resolve(self, repository_id: str, revision: bytes) -> ResolvedRevision | None:
        """Find a branch, tag or commit id, in this order, in the mirror. Empty or HEAD means the default branch."""
        if revision in DEFAULT:
            return self._default(repository_id, await self._refs(repository_id, *_DEFAULTS))
        names = refs_named(revision)
        refs = await self._refs(repository_id, *names, *_DEFAULTS)
        found = next((name for name in names if name in refs), b"")
        if found.startswith(b"refs/heads/"):
            return ResolvedRevision(refs[found], found.removeprefix(b"refs/heads/"))
        commit_id = refs.get(found)
        if commit_id is None and _ABBREVIATED.fullmatch(revision):
            commit_id = await self._commit(repository_id, revision)
        default = self._default(repository_id, refs)
        return ResolvedRevision(commit_id, default.branch if default else b"") if commit_id else None

    async def has(self, repository_id: str, commit_id: str) -> bool:
        """True when the mirror holds the commit."""
        return await self._commit(repository_id, commit_id.encode()) is not None

    def _default(self, repository_id: str, refs: dict[bytes, str]) -> ResolvedRevision | None:
        """Return the remote's HEAD; without one (as in a new bare repository) main, or else master."""
        head = (self._paths.mirror(repository_id) / "HEAD").read_bytes().strip().removeprefix(b"ref: refs/heads/")
        ref = next((ref for ref in _DEFAULTS if ref in refs), None)
        if ref is None:
            return None
        return ResolvedRevision(refs[ref], head if ref == HEAD_REF else ref.removeprefix(b"refs/heads/"))

    async def _refs(self, repository_id: str, *names: bytes) -> dict[bytes, str]:
        """Return the commits of those of the refs that exist."""
        command = Command("for-each-ref", (f"--format={_REF_FORMAT}",), names)
        listing = await self._git.run(command, Invocation(git_dir=self._paths.mirror(repository_id)))
        commits: dict[bytes, str] = {}
        for line in listing.stdout.splitlines():
            name, kind, commit_id = line.split(b" ")
            # A pattern also matches the refs below it. An annotated tag must still be peeled to its commit.
            if name in names:
                leads_to = commit_id.decode() if kind == b"commit" else await self._commit(repository_id, name)
                commits |= {name: leads_to} if leads_to else {}
        return commits

    async def _commit(self, repository_id: str, name: bytes) -> str | None:
        return await commit_of(self._git, self._paths.mirror(repository_id), name)


def refs_named(revision: bytes) -> tuple[bytes, ...]:
    """Return the refs that a revision may name, in the order in which they are looked for."""
    heads, tags = b"refs/heads/", b"refs/tags/"
    if revision.startswith((heads, tags)):
        return (revision,)
    full = (b"refs/" + revision,) if revision.startswith((b"heads/", b"tags/")) else ()
    named = (NAMED + revision,) if is_of_no_kind(revision) else ()
    return (heads + revision, tags + revision, *full, *named)


def is_of_no_kind(revision: bytes) -> bool:
    """True for the full name of a ref that is neither a branch nor a tag."""
    return revision.startswith(b"refs/") and not revision.startswith((b"refs/heads/", b"refs/tags/"))
