"""Chooses the driver that makes workspaces here: the best that works, or the requested one."""

import asyncio
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from services.common.errors import Exhausted, ServiceError, StartError
from services.sandbox import aio, environment, host_uids
from services.sandbox.errors import SandboxError
from services.sandbox.spec import Mount, MountAccess, SandboxSpec
from services.workspace.drivers.copying import CopyDriver, ReflinkDriver
from services.workspace.drivers.disk import DiskAdmission
from services.workspace.drivers.driver import Driver, DriverError
from services.workspace.drivers.layered import CHANGES, OverlayDriver, UsernsDriver, clear, probe_base
from services.workspace.owners import Owners

_log = structlog.get_logger()

_ANOTHER_USER = "a cell that a user of its own runs, as deploy/systemd has it, shares no uid with root"


@dataclass(frozen=True, slots=True)
class Choice:
    """All drivers by name, the best first; why each does not work here (None: it works); and those that are used."""

    drivers: Mapping[str, Driver]
    complaints: Mapping[str, str | None]
    chosen: Driver
    for_host: Driver
    """Makes the workspaces that are used without a sandbox."""
    owners: Owners | None = None
    """The uids of the workspaces that are used in sandboxes alone; None when they have the service's own."""
    shared_uid: str = ""
    """Why agents share the service's uid, for people; empty when each workspace has its own."""

    def new_owner(self) -> int | None:
        """Return the uid of a new workspace for sandboxes, None for the service's. Raises Exhausted."""
        return None if self.owners is None else self.owners.take()


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
    chosen = working[0]
    owners, complaint = await _owners(directory, chosen)
    if complaint and os.geteuid() == 0:
        complaint += await _mend(directory, [driver for driver in working if isinstance(driver, CopyDriver)])
    _log.info("makes workspaces", driver=chosen.name, without_a_sandbox=on_host[0].name, shared_uid=complaint)
    return Choice(drivers, complaints, chosen, on_host[0], owners, complaint)


async def _owners(directory: Path, driver: Driver) -> tuple[Owners | None, str]:
    """Return the uids of workspaces, when agents can work as them, or why not."""
    if os.geteuid() != 0:
        return None, host_uids.NOT_ROOT
    try:
        owners = await asyncio.to_thread(Owners, directory)
        complaint = await _try_as(owners.take(), driver, directory)
    except (OSError, Exhausted) as error:
        complaint = str(error)
    return (owners, "") if complaint is None else (None, complaint)


async def _mend(directory: Path, copying: Sequence[Driver]) -> str:
    """Return how agents get a uid other than root's where the best driver cannot give them one."""
    for driver in copying:
        owners, _ = await _owners(directory, driver)
        if owners is not None:
            return (
                f"; with BOATYARD_WORKSPACE_DRIVER={driver.name} each workspace has a uid of its own, and is a copy;"
                f" {_ANOTHER_USER}"
            )
    return f"; {_ANOTHER_USER}"


async def _try_as(owner: int, driver: Driver, directory: Path) -> str | None:
    """Work in a workspace as another uid. Return what does not work here, or None."""
    place = directory / f".probe.{secrets.token_hex(6)}"
    try:
        place.mkdir(mode=0o700)
        base, inside = probe_base(place), Path("/workspace")
        await driver.fill(place, (base,), owner)
        await driver.make_ready(place, (base,))
        layout = driver.layout(place, (base,))
        seen = layout.path or layout.mounted
        if seen is None:
            return f"with {driver.name} each sandbox mounts its layers for itself"
        mount = Mount(seen, inside, MountAccess.READ_WRITE)
        spec = SandboxSpec((b"/bin/sh", b"-c", CHANGES.encode()), inside, (mount,), environment.base())
        ended = await aio.run(spec, timeout=30)
        if ended.exit_code != 0:
            return ended.stderr.decode(errors="replace").strip() or "changes are lost"
        is_right = (seen / "kept").stat().st_uid == owner and (base / "kept").read_text() == "below\n"
    except (OSError, SandboxError, DriverError, ServiceError) as error:
        return str(error)
    else:
        return None if is_right else "what is changed belongs to somebody else"
    finally:
        await asyncio.to_thread(clear, place)
