"""What services that were killed for good may have left mounted."""

import os
from pathlib import Path

from services.workspace.drivers import mounts


def unmount_below(directory: Path) -> None:
    """Take away what is mounted there; only root has any."""
    if os.geteuid() == 0:
        for point in mounts.mounted_below(directory):
            mounts.hide(point)
