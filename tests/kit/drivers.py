"""The workspace drivers that work on this machine, by the service's own test."""

import asyncio
import tempfile
from pathlib import Path

from services.workspace.drivers import Choice, DiskAdmission, choose


def _choice() -> Choice:
    with tempfile.TemporaryDirectory(prefix="boatyard-drivers-") as directory:
        trees = Path(directory)
        return asyncio.run(choose(trees, DiskAdmission(trees, 0), wanted=None, concurrent_copies=1))


WORKING = [name for name, complaint in _choice().complaints.items() if complaint is None]
"""Their names, the best first. A test of what holds for every driver runs for each of them."""
