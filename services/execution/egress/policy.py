"""What may be reached: hosts that match a pattern, at addresses that are public or that the operator allows.

A name is resolved only once, and connections go to the addresses that were checked: a name server that answers
differently the second time gains nothing.
"""

import asyncio
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from services.common.addresses import is_public, unwrapped
from services.execution.egress.decisions import Decisions
from services.sandbox.host_patterns import HostPattern, normalized_host

_RESOLVE_S = 10.0

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class RefusedError(Exception):
    """A host may not or cannot be reached; the text is for the program that tried."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """Decides what may be reached, and reports each decision."""

    patterns: tuple[HostPattern, ...]
    networks: tuple[Network, ...]
    decisions: Decisions

    @classmethod
    def of(cls, hosts: Iterable[str], addresses: Iterable[str], decisions: Decisions) -> "EgressPolicy":
        """Parse patterns and networks. Raises ValueError."""
        return cls(tuple(map(HostPattern.parse, hosts)), tuple(map(ip_network, addresses)), decisions)

    def allows_name(self, name: str) -> bool:
        """Return whether a name may be looked up, and report the decision."""
        allowed = any(pattern.names(normalized_host(name)) for pattern in self.patterns)
        self.decisions.report(name, 53, allowed=allowed, reason="" if allowed else "HOST_NOT_ALLOWED")
        return allowed

    async def addresses(self, host: str, port: int) -> list[Address]:
        """Return the addresses to connect to for a host and port, and report the decision. Raises RefusedError."""
        try:
            addresses = await self._addresses(normalized_host(host), port)
        except RefusedError as refused:
            self.decisions.report(host, port, allowed=False, reason=refused.reason)
            raise
        self.decisions.report(host, port, allowed=True, reason="")
        return addresses

    async def _addresses(self, host: str, port: int) -> list[Address]:
        patterns = [pattern for pattern in self.patterns if pattern.names(host)]
        if not patterns:
            raise RefusedError("HOST_NOT_ALLOWED", f"{host} is not among the hosts that this execution may reach")
        if not any(port in pattern.ports for pattern in patterns):
            raise RefusedError("PORT_NOT_ALLOWED", f"port {port} of {host} is not one that this execution may reach")
        try:
            async with asyncio.timeout(_RESOLVE_S):
                loop = asyncio.get_running_loop()
                answers = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, TimeoutError) as error:
            raise RefusedError("NOT_FOUND", f"the name {host} cannot be resolved: {error}") from error
        resolved = list(dict.fromkeys(ip_address(str(address[0]).partition("%")[0]) for *_, address in answers))
        admitted = [address for address in resolved if self._admits(address)]
        if not admitted:
            listed = ", ".join(map(str, resolved[:3]))
            text = f"{host} is {listed}, which is not public, and not in BOATYARD_EXECUTION_NETWORK_ALLOWED_ADDRESSES"
            raise RefusedError("ADDRESS_NOT_ALLOWED", text)
        return admitted

    def _admits(self, address: Address) -> bool:
        inner = unwrapped(address)
        if any(one in network for network in self.networks for one in (address, inner)):
            return True
        return is_public(address) and not is_local(address) and not is_local(inner)


def is_local(address: Address) -> bool:
    """Return whether an address is one of this machine's: only those can be bound to."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True
