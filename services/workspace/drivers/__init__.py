"""Ways to make the files of a workspace, behind one seam."""

from services.workspace.drivers.copy import CopyDriver
from services.workspace.drivers.disk import DiskAdmission
from services.workspace.drivers.seam import Driver, DriverError

__all__ = ["CopyDriver", "DiskAdmission", "Driver", "DriverError"]
