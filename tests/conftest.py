"""Fixtures for all tests, and the check at the end that nothing of ours is left."""

import gc
from collections import defaultdict

import pytest
from hypothesis import settings

pytest_plugins = ["tests.kit.leaks", "tests.kit.postgres"]

# An example may take as long as it wants: how long that is depends on what else the machine does.
settings.register_profile("boatyard", deadline=None)
settings.load_profile("boatyard")

gc.disable()  # until all tests are collected: what is made until then stays
_DEFAULT_TIMEOUT = 120


@pytest.hookimpl(trylast=True)  # when the tests that are not wanted have left
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of the longest slow tests, so that no worker ends with one alone.

    How long one may take is said by its timeout. All others stay in their order: files of a folder share services.
    """
    longest: dict[str, float] = defaultdict(lambda: _DEFAULT_TIMEOUT)
    for item in items:
        timeout = item.get_closest_marker("timeout")
        if timeout and timeout.args and item.get_closest_marker("slow"):
            longest[str(item.path)] = max(longest[str(item.path)], timeout.args[0])
    items.sort(key=lambda item: longest[str(item.path)], reverse=True)


def pytest_configure(config: pytest.Config) -> None:
    """Keep the files of a folder together, which share services: by default xdist sorts all files by size."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_finish() -> None:
    """Let the garbage collector look at what tests make, and no longer at modules and tests: a tenth of all time."""
    gc.collect()
    gc.freeze()
    gc.enable()
