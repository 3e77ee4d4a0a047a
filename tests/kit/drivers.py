"""The workspace drivers that work on this machine, as the service itself finds out."""

import asyncio
import os
import tempfile
from pathlib import Path

from services.workspace.drivers import Choice, DiskAdmission, choose, mounts


def _choice() -> Choice:
    with tempfile.TemporaryDirectory(prefix="boatyard-drivers-") as directory:
        trees = Path(directory)
        return asyncio.run(choose(trees, DiskAdmission(trees, 0), wanted=None, concurrent_copies=1))


WORKING = [name for name, complaint in _choice().complaints.items() if complaint is None]
"""Their names, the best first. What a test promises of every driver it promises of each of these."""


def unmount_below(directory: Path) -> None:
    """Take away what a service left mounted that was killed for good; only root has any."""
    if os.geteuid() == 0:
        for point in mounts.mounted_below(directory):
            mounts.hide(point)
