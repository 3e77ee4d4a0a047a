"""Drivers: the ways to make the files of a workspace, behind one Protocol."""

from services.workspace.drivers.choice import Choice, choose
from services.workspace.drivers.disk import DiskAdmission
from services.workspace.drivers.driver import Driver, DriverError

__all__ = ["Choice", "DiskAdmission", "Driver", "DriverError", "choose"]
