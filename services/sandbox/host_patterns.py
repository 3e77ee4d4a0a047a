"""Patterns of hosts that a sandbox may reach.

example.com             this host, on ports 80 and 443
*.example.com           every name below it, at any depth, but not the name itself
example.com:22          only this port
[2001:db8::1]:443       an address, as in a URL
*                       every host
"""

import re
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Self

DEFAULT_PORTS = frozenset({80, 443})
MAX_BYTES = 253 + len("*.:65535")

_LABEL = "[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_PATTERN = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[^\[\]:]+)(:(?P<port>[0-9]{1,5}))?")
RULE = "a host (example.com), all below one (*.example.com), or *, with a port behind a colon unless it is 80 or 443"


@dataclass(frozen=True, slots=True)
class HostPattern:
    """A name or address in lower case, whether it matches the names below it, and ports."""

    host: str
    below: bool
    ports: frozenset[int] | range

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a pattern. Raises ValueError, with the rule."""
        found = _PATTERN.fullmatch(text.strip().lower().rstrip("."))
        if found is None or len(text) > MAX_BYTES:
            raise ValueError(f"must be {RULE}")
        host, port = found["host"], found["port"]
        below = host == "*" or host.startswith("*.")
        name = "" if host == "*" else host.removeprefix("*.")
        if port is not None and not 0 < int(port) < 65536:
            raise ValueError(f"must be {RULE}; {port} is no port")
        ports = DEFAULT_PORTS if port is None else frozenset({int(port)})
        if host.startswith("["):
            return cls(str(IPv6Address(host[1:-1])), below=False, ports=ports)
        if (name and not _NAME.fullmatch(name)) or not (name or below):
            raise ValueError(f"must be {RULE}")
        return cls(name, below, ports)

    def names(self, host: str) -> bool:
        """True when it matches a host; `host` is in the form that `normalized_host` returns."""
        return (not self.host or host.endswith(f".{self.host}")) if self.below else host == self.host

    def covers(self, other: Self) -> bool:
        """True when it matches all that another pattern matches."""
        if other.below:
            includes = self.below and (not self.host or f".{other.host}".endswith(f".{self.host}"))
        else:
            includes = self.names(other.host)
        return includes and set(other.ports) <= set(self.ports)


def normalized_host(host: str) -> str:
    """Return the canonical form of a host's name, or of its address without brackets."""
    return host.strip().removeprefix("[").removesuffix("]").rstrip(".").lower()
