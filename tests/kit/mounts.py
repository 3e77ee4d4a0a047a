"""Removes mounts that killed services have left behind."""

import os
from pathlib import Path

from services.workspace.drivers import mounts


def unmount_below(directory: Path) -> None:
    """Remove the mounts below a directory; only services that run as root make any."""
    if os.geteuid() == 0:
        for point in mounts.mounted_below(directory):
            mounts.hide(point)
