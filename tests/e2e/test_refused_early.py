"""What the only cell's settings forbid is refused when a job is submitted: no job, and no repository, is left of it."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.kit.cell import running_cell
from tests.kit.repos import Repo

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")]


def test_urls_and_images_that_a_cell_forbids_are_refused_early() -> None:
    directory = Path(tempfile.mkdtemp(prefix="boatyard-e2e-"))
    try:
        fine = Repo.sample(directory / "allowed" / "fine")
        outside = Repo.sample(directory / "outside")
        foreign = Repo.sample(directory / "allowed" / "foreign")
        for path in (foreign.path, *foreign.path.rglob("*")):
            os.chown(path, 12345, 12345, follow_symlinks=False)
        urls = {
            str(outside.path): b"BOATYARD_GIT_FILE_ROOTS",
            str(foreign.path): b"belongs to",
            "http://127.0.0.1:1/app.git": b"BOATYARD_GIT_ALLOW_LOOPBACK_HTTP",
            "https://10.1.2.3/app.git": b"BOATYARD_GIT_ALLOW_NETWORKS",
            "ssh://git@169.254.169.254/app.git": b"BOATYARD_GIT_ALLOW_NETWORKS",
        }
        with running_cell(directory / "cell", BOATYARD_GIT_FILE_ROOTS=str(directory / "allowed")) as cell:
            for url, says in urls.items():
                with cell.start("run", "--repo", url, "--command", "true", "Do it.") as process:
                    _, said = process.communicate(timeout=60)
                assert process.returncode != 0, url
                assert says in said, (url, said)
            assert cell.lines("repository", "list") == []
            assert cell.lines("ps") == []
            image = ("--sandbox", "container", "--image", "agents:1")
            with cell.start("run", "--command", "true", *image, "Do it.") as process:
                _, said = process.communicate(timeout=60)
            assert b"BOATYARD_EXECUTION_CONTAINER_IMAGE" in said, said
            assert cell.run(fine.path, "true")["state"] == "SUCCEEDED"
    finally:
        shutil.rmtree(directory)
