"""The workspace drivers that work on this machine, as the service itself finds out."""

import asyncio
import tempfile
from pathlib import Path

from services.workspace.drivers import Choice, DiskAdmission, choose


def _choice() -> Choice:
    with tempfile.TemporaryDirectory(prefix="boatyard-drivers-") as directory:
        trees = Path(directory)
        return asyncio.run(choose(trees, DiskAdmission(trees, 0), wanted=None, concurrent_copies=1))


WORKING = [name for name, complaint in _choice().complaints.items() if complaint is None]
"""Their names, the best first. What a test promises of every driver it promises of each of these."""
