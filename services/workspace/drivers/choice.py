"""Chooses the driver that makes workspaces here: the best that works, or the requested one."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from services.common.errors import StartError
from services.workspace.drivers.copying import CopyDriver, ReflinkDriver
from services.workspace.drivers.disk import DiskAdmission
from services.workspace.drivers.driver import Driver
from services.workspace.drivers.layered import OverlayDriver, UsernsDriver

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Choice:
    """All drivers by name, the best first; why each does not work here (None: it works); and those that are used."""

    drivers: Mapping[str, Driver]
    complaints: Mapping[str, str | None]
    chosen: Driver
    for_host: Driver
    """Makes the workspaces that are used without a sandbox."""


async def choose(directory: Path, admission: DiskAdmission, *, wanted: str | None, concurrent_copies: int) -> Choice:
    """Try all drivers below `directory`; choose `wanted`, or without it the best that works.

    Raises StartError when the requested one does not work, or none does.
    """
    copying = asyncio.Semaphore(concurrent_copies)
    drivers: dict[str, Driver] = {
        driver.name: driver
        for driver in (
            OverlayDriver(directory, admission),
            UsernsDriver(directory, admission),
            ReflinkDriver(directory, admission, copying),
            CopyDriver(directory, admission, copying),
        )
    }
    complaints = {name: await driver.probe() for name, driver in drivers.items()}
    working = [driver for name, driver in drivers.items() if complaints[name] is None]
    if wanted is not None:
        if complaints[wanted] is not None:
            works = ", ".join(driver.name for driver in working) or "none"
            raise StartError(
                f"BOATYARD_WORKSPACE_DRIVER is {wanted}, which does not work here ({complaints[wanted]}); these do: "
                f"{works}. Name one of them, or none to have the best"
            )
        working = [drivers[wanted], *working]
    on_host = [driver for driver in working if driver.on_host]
    if not on_host:
        raise StartError(f"no workspace can be made in {directory}: {complaints[CopyDriver.name]}")
    _log.info("makes workspaces", driver=working[0].name, without_a_sandbox=on_host[0].name)
    return Choice(drivers, complaints, working[0], on_host[0])
