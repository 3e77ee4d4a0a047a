"""Which submodules are told of: those of an agent's that nobody else can get, and are there without content."""

import time

import pytest

from services.git.model import SubmoduleLink
from services.git.worktree.changes import TreeChanges, TreeListing
from services.git.worktree.links import Links


def dangling(directories: tuple[bytes, ...], read: tuple[bytes, ...]) -> frozenset[bytes]:
    links = Links({}, (SubmoduleLink(b"lib", "1" * 40, is_published=False),), ())
    return links.dangling({}, (), TreeChanges((), read, ()), TreeListing(files=read, directories=directories))


@pytest.mark.parametrize(
    ("directories", "read", "is_told"),
    [
        ((b"lib",), (), True),
        ((b"lib",), (b"lib-2/x", b"lib.c", b"libs"), True),
        ((b"lib",), (b"lib/x",), False),
        ((b"lib", b"lib/a"), (b"lib-2/x", b"lib/a/x", b"lib0"), False),
        ((), (), False),
        ((), (b"lib",), False),
    ],
)
def test_what_is_told_of(directories: tuple[bytes, ...], read: tuple[bytes, ...], is_told: bool) -> None:
    assert dangling(directories, read) == (frozenset({b"lib"}) if is_told else frozenset())


def test_it_costs_no_more_where_an_agent_has_made_paths_of_many_parts() -> None:
    def cost(directory: bytes) -> float:
        read = tuple(sorted(directory + b"%d" % number for number in range(300)))
        started = time.process_time()
        for _ in range(20):
            dangling((b"lib",), read)
        return time.process_time() - started

    flat, deep = (min(cost(directory) for _ in range(3)) for directory in (b"x" * 3800 + b"/", b"a/" * 1900))
    assert deep < 50 * flat
