"""Patterns of files that nobody wants, as they hold within a directory of the tree, such as a submodule."""

import fnmatch
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

_EVERYTHING: Final = "*"
_ANY_PARTS: Final = "**"
_ESCAPED: Final = re.compile(r"\\(.)")


def within(patterns: Iterable[str], directory: bytes) -> tuple[str, ...]:
    """Return patterns, as in a .gitignore file at the top of a tree, for one at the top of a directory below it."""
    names = os.fsdecode(directory).split("/")
    return tuple(dict.fromkeys(rest for pattern in patterns for rest in _rests(pattern, names)))


def _rests(pattern: str, names: Sequence[str]) -> Iterator[str]:
    body = pattern.rstrip("/")
    closing = "/" if body != pattern else ""
    if "/" not in body:  # it may name something at any depth
        yield _EVERYTHING if any(_fits(body, name) for name in names) else pattern
        return
    parts = body.lstrip("/").split("/")
    reached = _with_skipped(parts, {0})
    for name in names:
        reached = _with_skipped(parts, {after for index in reached for after in _after(parts, index, name)})
        if len(parts) in reached:
            yield _EVERYTHING
            return
    for index in sorted(reached):
        yield "/" + "/".join(parts[index:]) + closing


def _after(parts: Sequence[str], index: int, name: str) -> Iterator[int]:
    if parts[index] == _ANY_PARTS:
        yield index
    elif _fits(parts[index], name):
        yield index + 1


def _with_skipped(parts: Sequence[str], reached: set[int]) -> set[int]:
    """Add where a pattern is when its `**` stand for nothing; the last one stands for something."""
    for index in sorted(reached):
        following = index
        while following < len(parts) - 1 and parts[following] == _ANY_PARTS:
            following += 1
            reached.add(following)
    return reached


def _fits(part: str, name: str) -> bool:
    return fnmatch.fnmatchcase(name, _ESCAPED.sub(r"[\1]", part))
