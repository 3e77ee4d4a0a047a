"""The submodules of a commit, as they are found, checked out and told of."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.git.model import Remote


@dataclass(frozen=True, slots=True)
class Submodule:
    """A submodule that a mirror has: `path` from the top of the tree, `git_dir` from the top's `.git`.

    `remote` is its repository, which has the mirror's id.
    """

    path: bytes
    name: str
    git_dir: Path
    url: str
    commit_id: str
    remote: Remote
    within: Path = Path()

    @property
    def mirror_id(self) -> str:
        """Return the id of the mirror that has it."""
        return self.remote.repository_id

    @property
    def is_outer(self) -> bool:
        """True for one that is in no other."""
        return self.within == Path()

    @property
    def directory(self) -> str:
        """Return its path as the system takes it."""
        return os.fsdecode(self.path)


@dataclass(frozen=True, slots=True)
class FoundSubmodules:
    """The submodules of a commit: those that can be checked out, outer ones first, and why others cannot, by paths."""

    had: tuple[Submodule, ...] = ()
    missing: tuple[tuple[bytes, str], ...] = ()

    @property
    def key(self) -> str:
        """Return what tells the tree with them from those with others; empty for a commit that has none."""
        if not self.had and not self.missing:
            return ""
        facts = sorted((each.path, each.name, each.commit_id, each.mirror_id) for each in self.had)
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]

    @property
    def mirror_ids(self) -> tuple[str, ...]:
        """Return the mirrors from which they borrow objects."""
        return tuple(dict.fromkeys(each.mirror_id for each in self.had))


NO_SUBMODULES: Final = FoundSubmodules()
