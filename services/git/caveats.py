"""Caveats: made of paths, which are sorted, counted, and cut to what an answer holds; and as they are stored."""

import json
from collections.abc import Iterable, Mapping
from typing import Final

from services.common.caveats import CaveatKind
from services.common.display import one_line
from services.git.model import Caveat
from services.redaction.gaps import GAP

_MAX_PATHS: Final = 100
_PATH_BYTES: Final = 4095
_SHOWN_BYTES: Final = 1024
_DETAIL_CHARACTERS: Final = 256
# Kinds as they were stored beside bases until 30 November 2026.
_FORMER_KINDS: Final = {"submodules": "EMPTY_SUBMODULES", "lfs-pointers": "LFS_POINTERS"}


def caveats_of(
    paths_by_kind: Mapping[CaveatKind, Iterable[bytes]], details: Mapping[CaveatKind, str] | None = None
) -> tuple[Caveat, ...]:
    """Return a caveat of each kind that has paths, in the order of the kinds."""
    details = details or {}
    found = []
    for kind, paths in sorted(paths_by_kind.items(), key=lambda item: list(CaveatKind).index(item[0])):
        if ordered := sorted(set(paths)):
            detail = one_line(details.get(kind, ""))
            if len(detail) > _DETAIL_CHARACTERS:
                detail = detail[: _DETAIL_CHARACTERS - len(GAP)] + GAP
            found.append(Caveat(kind, tuple(map(_shown, ordered[:_MAX_PATHS])), len(ordered), detail))
    return tuple(found)


def _shown(path: bytes) -> bytes:
    return path if len(path) <= _PATH_BYTES else path[: _SHOWN_BYTES - len(GAP.encode())] + GAP.encode()


def caveats_to_json(caveats: Iterable[Caveat]) -> str:
    """Return caveats as they are stored."""
    return json.dumps(
        [
            {
                "kind": each.kind.value,
                "paths": [path.hex() for path in each.paths],
                "total": each.total_paths,
                "detail": each.detail,
            }
            for each in caveats
        ]
    )


def caveats_from_json(text: str | bytes) -> tuple[Caveat, ...]:
    """Return stored caveats."""
    return tuple(
        Caveat(
            CaveatKind(_FORMER_KINDS.get(one["kind"], one["kind"])),
            tuple(map(bytes.fromhex, one["paths"])),
            one["total"],
            one.get("detail", ""),
        )
        for one in json.loads(text)
    )
