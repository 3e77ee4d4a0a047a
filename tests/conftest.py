"""Fixtures for all tests, and the check at the end that nothing of ours is left."""

pytest_plugins = ["tests.kit.leaks", "tests.kit.postgres"]
