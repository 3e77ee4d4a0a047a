"""Guards against SSRF: a repository's URL must not reach what only this machine, or its network, can reach."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.request import getproxies_environment, proxy_bypass

from services.common.addresses import is_public
from services.git import failures
from services.git.gitcmd import GitError

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Awaitable[list[IPAddress]]]

_PORTS: Final = {"https": 443, "http": 80, "ssh": 22}


@dataclass(frozen=True, slots=True)
class SsrfGuard:
    """Decides which addresses remotes may have: public ones, and those in `networks`."""

    networks: tuple[IPNetwork, ...] = ()

    def admits(self, address: IPAddress) -> bool:
        """True when a remote may have this address."""
        return is_public(address) or any(address in network for network in self.networks)

    async def pin(self, scheme: str, host: str, port: int | None, resolve: Resolve | None = None) -> str:
        """Resolve the host, and return the `http.curloptResolve` that pins git to the result, or an empty string.

        It is empty for ssh, which resolves names by itself: a name server that gives ssh another answer than us is not
        caught. Behind a proxy the proxy resolves and connects, so only literal addresses are judged here.

        Raises:
            FailedPrecondition: ADDRESS_NOT_ALLOWED.
            GitError: the name cannot be resolved.
        """
        chosen = port or _PORTS[scheme]
        literal = _literal(host)
        if literal is None and scheme != "ssh" and _is_proxied(scheme, host):
            return ""
        try:
            answers = [literal] if literal else await (resolve or _look_up)(host, chosen)
        except (OSError, UnicodeError) as error:  # the latter: no name can be like this
            words = getattr(error, "strerror", None) or error
            raise GitError("resolve", f"could not resolve host {host}: {words}") from error
        refused = [address for address in answers if not self.admits(address)]
        # A single address that is not allowed, among several, is enough to refuse: it may be an attempt at rebinding.
        if refused or not answers:
            raise failures.address_not_allowed(host, str(refused[0]) if refused else "nowhere")
        addresses = ",".join(f"[{address}]" if address.version == 6 else str(address) for address in answers)
        return "" if scheme == "ssh" or literal else f"{host}:{chosen}:{addresses}"


def _literal(host: str) -> IPAddress | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _is_proxied(scheme: str, host: str) -> bool:
    proxies = getproxies_environment()
    return bool(proxies.get(scheme) or proxies.get("all")) and not proxy_bypass(host, proxies)


async def _look_up(host: str, port: int) -> list[IPAddress]:
    answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ip_address(str(socket_address[0]).partition("%")[0]) for *_, socket_address in answers))
