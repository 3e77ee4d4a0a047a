"""In what a base or a result differs from what it was made of: a table that all services share.

A new kind needs a row here, a value in `git.v1.Caveat.Kind`, and a place in the git service that finds it. The names
are in the API and in stored jobs, so that a kind is never renamed.
"""

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final


class CaveatKind(enum.StrEnum):
    """What is different."""

    EMPTY_SUBMODULES = "EMPTY_SUBMODULES"
    LFS_POINTERS = "LFS_POINTERS"
    SUBMODULE_CONTENT = "SUBMODULE_CONTENT"
    SUBMODULE_COMMITS = "SUBMODULE_COMMITS"
    LFS_FILES = "LFS_FILES"
    UNREADABLE = "UNREADABLE"
    PATH_TOO_LONG = "PATH_TOO_LONG"
    SPECIAL_FILES = "SPECIAL_FILES"
    REFUSED = "REFUSED"
    OWN_BOATYARD = "OWN_BOATYARD"


@dataclass(frozen=True, slots=True)
class CaveatRow:
    """What people are told, before the paths; and what is missing.

    `is_loss`: work, so that a result is incomplete. `is_lack`: what the repository has, so that an agent works without.
    """

    says: str
    is_of_base: bool = False
    is_loss: bool = False
    is_lack: bool = False


CAVEATS: Final[Mapping[CaveatKind, CaveatRow]] = {
    CaveatKind.EMPTY_SUBMODULES: CaveatRow(
        "submodules are not fetched, their directories are empty", is_of_base=True, is_lack=True
    ),
    CaveatKind.LFS_POINTERS: CaveatRow(
        "files of Git LFS are not fetched, they are pointers", is_of_base=True, is_lack=True
    ),
    CaveatKind.OWN_BOATYARD: CaveatRow(
        "the repository's own directory is where agents get their input too: new files in there are not in the result",
        is_of_base=True,
    ),
    CaveatKind.SUBMODULE_CONTENT: CaveatRow("what was written inside submodules is not in the result", is_loss=True),
    CaveatKind.SUBMODULE_COMMITS: CaveatRow(
        "submodules are at commits that their repositories do not have, and stay as they were in the result",
        is_loss=True,
    ),
    CaveatKind.LFS_FILES: CaveatRow("files for Git LFS are in the result themselves, not as pointers"),
    CaveatKind.UNREADABLE: CaveatRow("what cannot be read is not in the result", is_loss=True),
    CaveatKind.PATH_TOO_LONG: CaveatRow("paths of more than 4095 bytes are not in the result", is_loss=True),
    CaveatKind.SPECIAL_FILES: CaveatRow("pipes, sockets and devices are not in the result"),
    CaveatKind.REFUSED: CaveatRow("what git does not accept is not in the result", is_loss=True),
}


def told(kind: str, paths: Collection[str], total_paths: int, detail: str = "") -> str:
    """Return a caveat in one line, with its paths, which are for one line already. Its kind may be newer than ours."""
    says = CAVEATS[CaveatKind(kind)].says if kind in CaveatKind.__members__ else kind
    more = total_paths - len(paths)
    named = ", ".join(paths) + (f" and {more} more" if more > 0 else "")
    return f"{says}: {named}" + (f" ({detail})" if detail else "")
