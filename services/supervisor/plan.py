"""The plan of a cell: its services, their addresses and environment, and the files that record them."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.common.errors import StartError
from services.common.home import Home
from services.common.rpc.tls import ClientTls

GATEWAY, WORKSPACE, GIT, EXECUTION, HTTP = "gateway", "workspace", "git", "execution", "http"
COORDINATOR = "coordinator"
NODE_SERVICES = (WORKSPACE, GIT, EXECUTION)
SERVICES = (*NODE_SERVICES, GATEWAY)
EVERY_SERVICE = (*SERVICES, COORDINATOR)
"""All services that may run in a data directory; a cell has either a gateway or a coordinator."""

DEFAULT_PORT_BASE = 7460
_OFFSETS = {GATEWAY: 0, WORKSPACE: 1, GIT: 2, EXECUTION: 3, COORDINATOR: 4, HTTP: 20}
_HIGHEST_BASE = 65535 - max(_OFFSETS.values())


@dataclass(frozen=True, slots=True)
class CellPlan:
    """A cell before it runs. `addresses` has host:port by service; each service gets its part of `environment`.

    `driver` is the service that drives the node services.
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

    def tls_of(self, service: str) -> ClientTls | None:
        """Return the TLS of calls to a service; None for unencrypted calls."""
        return gateway_tls(self.environment) if service == GATEWAY else None

    def log_file(self, service: str) -> Path:
        """The log file of a service."""
        return self.home.root / "logs" / f"{service}.log"


def plan(home: Home, port_base: int | None, environment: Mapping[str, str], *, driver: str = GATEWAY) -> CellPlan:
    """Plan a cell. `port_base` moves all addresses; without it, settings may move individual ones.

    Raises StartError when not all ports fit above the base.
    """
    if port_base is not None and not 1024 <= port_base <= _HIGHEST_BASE:
        raise StartError(f"--port-base must be from 1024 to {_HIGHEST_BASE}, not {port_base}")
    services = (*NODE_SERVICES, GATEWAY, HTTP) if driver == GATEWAY else (*NODE_SERVICES, driver)
    addresses = {service: _address(service, port_base, environment) for service in services}
    settings = {
        "BOATYARD_HOME": str(home.root),
        **{_listen_variable(service): address for service, address in addresses.items()},
        **{f"BOATYARD_{driver.upper()}_{service.upper()}_ADDRESS": addresses[service] for service in NODE_SERVICES},
        # Local remotes are useful on one's own machine; a service that is started by hand allows none.
        "BOATYARD_GIT_FILE_ROOTS": environment.get("BOATYARD_GIT_FILE_ROOTS", "/"),
    }
    return CellPlan(home, addresses, {**environment, **settings}, driver)


def default_address(service: str, environment: Mapping[str, str]) -> str:
    """Return where a service listens without --port-base: its setting, or the default."""
    return environment.get(_listen_variable(service)) or f"127.0.0.1:{DEFAULT_PORT_BASE + _OFFSETS[service]}"


def _address(service: str, port_base: int | None, environment: Mapping[str, str]) -> str:
    if port_base is None:
        return default_address(service, environment)
    return f"127.0.0.1:{port_base + _OFFSETS[service]}"


def _listen_variable(service: str) -> str:
    return "BOATYARD_GATEWAY_HTTP_LISTEN" if service == HTTP else f"BOATYARD_{service.upper()}_LISTEN"


def gateway_tls(environment: Mapping[str, str]) -> ClientTls | None:
    """Read BOATYARD_GATEWAY_CA and the related variables; None without a CA, which means unencrypted calls."""
    return ClientTls.of(
        environment.get("BOATYARD_GATEWAY_CA", ""),
        environment.get("BOATYARD_GATEWAY_CLIENT_CERTIFICATE", ""),
        environment.get("BOATYARD_GATEWAY_CLIENT_KEY", ""),
        environment.get("BOATYARD_GATEWAY_SERVER_NAME", ""),
    )


def supervisor_lock(home: Home) -> Path:
    """The lock that the supervisor of a data directory holds while it lives."""
    return home.root / "run" / "supervisor.lock"


def service_lock(home: Home, service: str) -> Path:
    """The lock that a service's process holds while it lives."""
    return home.root / "run" / f"{service}.lock"


def cell_file(home: Home) -> Path:
    """The file with the addresses of a data directory's cell while it runs."""
    return home.root / "run" / "cell.json"


def write_cell_file(cell: CellPlan) -> None:
    """Write the addresses for the command line."""
    path = cell_file(cell.home)
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({"addresses": dict(cell.addresses), "pid": os.getpid()}) + "\n")
    temporary.rename(path)


def read_cell_addresses(home: Home) -> Mapping[str, str]:
    """Return the addresses that the last supervisor of this data directory wrote; empty without one."""
    try:
        addresses = json.loads(cell_file(home).read_text())["addresses"]
        return {str(service): str(address) for service, address in addresses.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}
