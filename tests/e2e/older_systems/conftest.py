"""One cell for all rows of the page; a test of a row leaves it taking jobs."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.cell import NOT_KEPT_APART, running_cell
from tests.kit.older_systems import House
from tests.kit.replay import replaying, write_script
from tests.kit.repos import Repo

USED = {"input": 1000, "output": 100}


@pytest.fixture(scope="package")
def house() -> Iterator[House]:
    directory = Path(tempfile.mkdtemp(prefix="boatyard-e2e-"))
    remote = Repo.sample(directory / "source").bare_clone(directory / "remote.git")
    script = write_script(directory / "script.toml", [{"text": "Done.", "usage": USED}])
    with replaying(directory, script, key="moved-key") as replay:
        settings = NOT_KEPT_APART | {
            "AGENT_COMMAND": "echo this is AGENT_COMMAND",
            "ANTHROPIC_API_KEY": "moved-key",
            "ANTHROPIC_BASE_URL": replay.url,
            "ANTHROPIC_MODEL": "claude-haiku-5-5",
            "BOATYARD_GATEWAY_MAX_JOBS": "3",
        }
        with running_cell(directory, **settings) as cell:
            yield House(cell, remote)
    shutil.rmtree(directory)
