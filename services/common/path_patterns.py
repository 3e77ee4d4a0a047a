"""Which paths of a repository a pattern names: for what is to be noticed, however it is written.

`.github/workflows` and `.github/workflows/**` name that directory and all in it; `*` and `?` stand for characters of
one part of a path, `**` for any parts: `**/Makefile`. A file, a symbolic link or a submodule in the place of a
directory on the way to what a pattern names is named too: it would take that directory away, or stand for another.

Names that some file system takes for the same are the same: case, Unicode's forms of a character, characters that
nobody sees, dots and spaces at the end of a part.
"""

import fnmatch
import re
import unicodedata
from collections.abc import Iterable
from functools import cached_property
from typing import Final

_ANY_PARTS: Final = "**"
_WILD: Final = re.compile(r"[*?\[]")


class PathPatterns:
    """Some patterns, each a relative path."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = [_Pattern(_parts(pattern)) for pattern in patterns]

    def name(self, path: bytes) -> bool:
        """Return True when any of the patterns names this path."""
        parts = _parts(path.decode("utf-8", "surrogateescape"))
        return any(pattern.names(parts) for pattern in self._patterns)


class _Pattern:
    def __init__(self, parts: list[str]) -> None:
        self._parts = parts

    def names(self, path: list[str]) -> bool:
        """Return True when the pattern names a path, a directory that it is in, or something below it."""
        reached = self._with_skipped({0})
        for part in path:
            if len(self._parts) in reached:
                return True
            reached = self._with_skipped({following for index in reached for following in self._after(index, part)})
        return len(self._parts) in reached or self._fixed[: len(path)] == path

    @cached_property
    def _matchers(self) -> list[re.Pattern[str]]:
        return [re.compile(fnmatch.translate(part)) for part in self._parts]

    @cached_property
    def _fixed(self) -> list[str]:
        """The parts before the first that stands for several names."""
        wild = (index for index, part in enumerate(self._parts) if _WILD.search(part))
        return self._parts[: next(wild, len(self._parts))]

    def _after(self, index: int, part: str) -> set[int]:
        if self._parts[index] == _ANY_PARTS:
            return {index}
        return {index + 1} if self._matchers[index].match(part) else set()

    def _with_skipped(self, reached: set[int]) -> set[int]:
        """Return the places in the pattern that are reached, with those behind a `**` that stands for nothing."""
        for index in range(len(self._parts)):
            if index in reached and self._parts[index] == _ANY_PARTS:
                reached.add(index + 1)
        return reached


def _parts(path: str) -> list[str]:
    """Return the parts of a path, each as the most forgiving file system reads it."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", path).casefold())
    seen = "".join(character for character in folded if unicodedata.category(character) != "Cf")
    return [part.rstrip(" .") or part for part in seen.split("/")]
