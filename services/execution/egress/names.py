"""Made-up addresses, one for each name that was looked up: so a connection to one is still a connection to a name.

They are of 198.18.0.0/15, the network for benchmarks (RFC 2544), in which no server for people is.
"""

from ipaddress import IPv4Address
from typing import Final

_FIRST: Final = IPv4Address("198.18.0.1")
_ADDRESSES: Final = 2**17 - 2
_MOST_NAMES: Final = 8192


class MadeUpAddresses:
    """Remembers the names that were looked up or connected to last, up to a maximum.

    An address is given to another name only after all others were given: who keeps one for too long reaches nothing.
    """

    def __init__(self, most: int = _MOST_NAMES) -> None:
        self._most = most
        self._given = 0
        self._addresses: dict[str, IPv4Address] = {}
        self._names: dict[IPv4Address, str] = {}

    def address_of(self, name: str) -> IPv4Address:
        """Return the address of a name, a new one if it has none."""
        address = self._addresses.pop(name, None)
        if address is None:
            if len(self._addresses) >= self._most:
                del self._names[self._addresses.pop(next(iter(self._addresses)))]
            address = _FIRST + self._given % _ADDRESSES
            self._given += 1
        self._addresses[name] = address
        self._names[address] = name
        return address

    def name_of(self, address: IPv4Address) -> str | None:
        """Return the name that an address was given to; None when there is none, or not any more."""
        name = self._names.get(address)
        if name is not None:
            self.address_of(name)  # it is in use
        return name
