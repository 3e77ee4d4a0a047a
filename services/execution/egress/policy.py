"""What may be reached: hosts that match a pattern, at addresses that are public or that the operator allows.

An address is not public to us if it is in a network that this machine itself is in.

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
from services.execution.egress.neighbours import attached_networks
from services.sandbox.host_patterns import HostPattern, normalized_host

_RESOLVE_S = 10.0
_EVERYTHING = HostPattern("", below=True, ports=range(1, 1 << 16))

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
    """What may be reached without being public."""
    attached: tuple[Network, ...]
    """What this machine is part of."""
    decisions: Decisions

    @classmethod
    def of(cls, hosts: Iterable[str] | None, addresses: Iterable[str], decisions: Decisions) -> "EgressPolicy":
        """Parse patterns (None: every host, on every port) and networks, and look at this machine's own.

        Raises ValueError, OSError.
        """
        patterns = (_EVERYTHING,) if hosts is None else tuple(map(HostPattern.parse, hosts))
        return cls(patterns, tuple(map(ip_network, addresses)), tuple(attached_networks()), decisions)

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
            text = (
                f"{host} is {listed}, which is not public or in a network of this machine's own, and not in"
                " BOATYARD_EXECUTION_NETWORK_ALLOWED_ADDRESSES"
            )
            raise RefusedError("ADDRESS_NOT_ALLOWED", text)
        return admitted

    def _admits(self, address: Address) -> bool:
        both = (address, unwrapped(address))
        if any(one in network for network in self.networks for one in both):
            return True
        if any(one in network for network in self.attached for one in both):
            return False
        return is_public(address) and not any(map(is_local, both))


def is_local(address: Address) -> bool:
    """Return whether an address is one of this machine's: only those can be bound to."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True
