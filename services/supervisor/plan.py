"""The plan of a cell: its services, their addresses and environment, and the files that record them."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.common.errors import StartError
from services.common.files import write_whole
from services.common.home import Home
from services.common.lock import is_held
from services.common.room import is_out_of_room

GATEWAY, WORKSPACE, GIT, EXECUTION, HTTP = "gateway", "workspace", "git", "execution", "http"
COORDINATOR = "coordinator"
NODE_SERVICES = (WORKSPACE, GIT, EXECUTION)
SERVICES = (*NODE_SERVICES, GATEWAY)
EVERY_SERVICE = (*SERVICES, COORDINATOR)
"""All services that may run in a data directory; a cell has either a gateway or a coordinator."""

DEFAULT_PORT_BASE = 7460
_OFFSETS = {GATEWAY: 0, HTTP: 20}
"""The services that have a port. The others have a socket alone."""
_HIGHEST_BASE = 65535 - max(_OFFSETS.values())

RENEWAL = "end `boatyard up` by Ctrl-C or TERM, and start it again; its jobs go on"
"""What to do with a cell that an earlier version started: see `has_no_sockets`."""


@dataclass(frozen=True, slots=True)
class CellPlan:
    """A cell before it runs. `addresses` has each service's socket, or host:port; of a gateway it is the port.

    Each service gets its part of `environment`. `driver` is the service that drives the node services.
    """

    home: Home
    addresses: Mapping[str, str]
    environment: Mapping[str, str]
    driver: str = GATEWAY

    @property
    def services(self) -> tuple[str, ...]:
        """The services of this cell."""
        return (*NODE_SERVICES, self.driver)

    @property
    def command(self) -> str:
        """The command line that runs it."""
        return "boatyard up" if self.driver == GATEWAY else "boatyard coordinator"

    def called_at(self, service: str) -> str:
        """Return the address at which the cell's own programs call a service."""
        return self.home.socket(GATEWAY) if service == GATEWAY else self.addresses[service]

    def log_file(self, service: str) -> Path:
        """The log file of a service."""
        return self.home.root / "logs" / f"{service}.log"


def plan(home: Home, port_base: int | None, environment: Mapping[str, str], *, driver: str = GATEWAY) -> CellPlan:
    """Plan a cell. `port_base` moves the gateway's ports; without it, settings may.

    The other services listen at sockets, unless settings say otherwise. Raises StartError for a base out of range.
    """
    if port_base is not None and not 1024 <= port_base <= _HIGHEST_BASE:
        raise StartError(f"--port-base must be from 1024 to {_HIGHEST_BASE}, not {port_base}")
    services = (*NODE_SERVICES, GATEWAY, HTTP) if driver == GATEWAY else (*NODE_SERVICES, driver)
    addresses = {service: _address(home, service, port_base, environment) for service in services}
    settings = {
        "BOATYARD_HOME": str(home.root),
        **{_listen_variable(service): address for service, address in addresses.items()},
        **{f"BOATYARD_{driver.upper()}_{service.upper()}_ADDRESS": addresses[service] for service in NODE_SERVICES},
        # Local remotes are useful on one's own machine; a service that is started by hand allows none.
        "BOATYARD_GIT_FILE_ROOTS": environment.get("BOATYARD_GIT_FILE_ROOTS", "/"),
    }
    return CellPlan(home, addresses, {**environment, **settings}, driver)


def _address(home: Home, service: str, port_base: int | None, environment: Mapping[str, str]) -> str:
    chosen = environment.get(_listen_variable(service))
    if service not in _OFFSETS:
        return chosen or home.socket(service)
    if port_base is None:
        return chosen or f"127.0.0.1:{DEFAULT_PORT_BASE + _OFFSETS[service]}"
    return f"127.0.0.1:{port_base + _OFFSETS[service]}"


def _listen_variable(service: str) -> str:
    return "BOATYARD_GATEWAY_HTTP_LISTEN" if service == HTTP else f"BOATYARD_{service.upper()}_LISTEN"


def supervisor_lock(home: Home) -> Path:
    """The lock that the supervisor of a data directory holds while it lives."""
    return home.root / "run" / "supervisor.lock"


def service_lock(home: Home, service: str) -> Path:
    """The lock that a service's process holds while it lives."""
    return home.root / "run" / f"{service}.lock"


def cell_file(home: Home) -> Path:
    """The file with the addresses of a data directory's cell while it runs."""
    return home.root / "run" / "cell.json"


def write_cell_file(cell: CellPlan) -> bool:
    """Write where the services are, for whoever looks, and for the command line of earlier versions.

    Returns False when the disk has no room for it.
    """
    called_at = {service: cell.called_at(service) for service in cell.services}
    document = {"addresses": dict(cell.addresses), "called_at": called_at, "pid": os.getpid()}
    try:
        write_whole(cell_file(cell.home), json.dumps(document).encode() + b"\n")
    except OSError as error:
        if not is_out_of_room(error):
            raise
        return False
    return True


def has_no_sockets(home: Home) -> bool:
    """True when a cell runs in this data directory that an earlier version started, whose services have ports alone."""
    document = _cell_document(home)
    return bool(document) and "called_at" not in document and is_held(supervisor_lock(home))


def read_called_at(home: Home) -> Mapping[str, str]:
    """Return where the services of this data directory's running cell are called, by service; empty without one."""
    called_at = _cell_document(home).get("called_at")
    return called_at if isinstance(called_at, dict) else {}


def _cell_document(home: Home) -> Mapping[str, Any]:
    """Return what the supervisor wrote; empty where it wrote nothing, or no such file."""
    try:
        document = json.loads(cell_file(home).read_text())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
