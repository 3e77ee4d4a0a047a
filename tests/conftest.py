"""Fixtures for all tests, and the check at the end that nothing of ours is left."""

import gc

import pytest
from hypothesis import settings

pytest_plugins = ["tests.kit.leaks", "tests.kit.postgres"]

# An example may take as long as it wants: how long that is depends on what else the machine does.
settings.register_profile("boatyard", deadline=None)
settings.load_profile("boatyard")


def pytest_configure(config: pytest.Config) -> None:
    """Keep the files of a folder together, which share services: by default xdist sorts all files by size."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_finish() -> None:
    """Let the garbage collector look at what tests make, and no longer at modules and tests: a tenth of all time."""
    gc.collect()
    gc.freeze()
