"""Which remotes may be used, and how: allowed schemes and hosts, and how a token reaches the server."""

import base64
import contextlib
import ipaddress
import re
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from services.git.gitcmd import GitError, Invocation
from services.git.model import Remote
from services.git.remote.far_side import Connection, FarSide
from services.git.remote.file_repository import FileRoots
from services.git.remote.ssrf import IPNetwork, SsrfGuard

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_NOT_ALLOWED: Final = (
    "must be https, ssh, or an absolute file path under the configured roots (BOATYARD_GIT_FILE_ROOTS)"
)
_NO_LOOPBACK_HTTP: Final = (
    "may be http, for a git server on this machine, only where BOATYARD_GIT_ALLOW_LOOPBACK_HTTP is true"
)
# user@host:path as git parses it: no slash before the first colon.
_SCP: Final = re.compile(r"(?:(?P<user>[^@/:]+)@)?(?P<host>[^@/:]+):(?P<path>.+)")
_LOOPBACK: Final = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
_LABEL: Final = "[A-Za-z0-9_-]{1,63}"
_HOST: Final = re.compile(rf"(?![_-]){_LABEL}(\.{_LABEL})*(?<![_-])")
_USER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
# The well-known hosts accept any user name with a token; this is the one that GitHub and GitLab document.
TOKEN_USER: Final = "x-access-token"  # noqa: S105 - a user name


@dataclass(frozen=True, slots=True)
class Address:
    """An allowed remote: the URL that git is given, and the one transport that it may use.

    `far_side` is the other end of a remote on this machine.
    """

    url: str
    protocol: str
    pinned: str = ""
    far_side: FarSide | None = None

    def reading(self, invocation: Invocation) -> AbstractAsyncContextManager[Connection]:
        """Give the connection of one command that reads from the remote. Raises the errors of `FarSide.connected`."""
        return self._connected("upload-pack", invocation)

    def writing(self, invocation: Invocation) -> AbstractAsyncContextManager[Connection]:
        """Give the connection of one push to the remote. Raises the errors of `FarSide.connected`."""
        return self._connected("receive-pack", invocation)

    def _connected(self, program: str, invocation: Invocation) -> AbstractAsyncContextManager[Connection]:
        if self.far_side is not None:
            return self.far_side.connected(program, invocation)
        return contextlib.nullcontext(Connection(self.url, (), invocation))

    def invocation(self, remote: Remote) -> Invocation:
        """Return how to run the one command that needs the token, which is in the environment, for this host only.

        A private key for ssh is in memory alone, and so are certificates.
        """
        token = remote.token
        config: tuple[tuple[str, str], ...] = (("http.curloptResolve", self.pinned),) if self.pinned else ()
        secrets: tuple[str, ...] = ()
        if token and self.protocol in {"https", "http"}:
            encoded = base64.b64encode(f"{TOKEN_USER}:{token}".encode()).decode()
            host = urlsplit(self.url)
            config = (
                *config,
                (f"http.{host.scheme}://{host.netloc}/.extraHeader", f"Authorization: Basic {encoded}"),
            )
            secrets = (token, encoded)
        key = token if self.protocol == "ssh" else ""
        return Invocation(config=config, secrets=secrets, protocol=self.protocol, ssh_key=key, ca=remote.ca)


class AddressBook:
    """Decides which URLs may be used.

    Args:
        file_roots: where remotes on this machine may lie.
        sandboxed: whether the far side of those runs in a sandbox.
        allow_loopback_http: whether plain http to this machine is allowed, for tests and local servers.
        networks: where remotes may be, besides public addresses.
    """

    def __init__(
        self,
        file_roots: FileRoots,
        *,
        sandboxed: bool = True,
        allow_loopback_http: bool = False,
        networks: tuple[IPNetwork, ...] = (),
    ) -> None:
        self._roots = file_roots
        self._sandboxed = sandboxed
        self._loopback_http = allow_loopback_http
        self._guard = SsrfGuard((*networks, *_LOOPBACK) if allow_loopback_http else networks)

    def complaint(self, url: str) -> str | None:
        """Return why this URL may not be used, None when it may."""
        is_path = url.startswith("/")
        if url.startswith("-") or _CONTROL.search(url) or "::" in url.partition("/")[0] or (" " in url and not is_path):
            return (
                "must not begin with a dash, hold control characters, name a transport helper,"
                " or hold spaces, unless it is a path"
            )
        if is_path:
            return self._roots.complaint(Path(url))
        if "://" in url:
            return self._url_complaint(url)
        return _scp_complaint(url)

    async def resolve(self, url: str) -> Address:
        """Return the address of a remote after resolving its host. The URL must have passed `complaint`.

        Raises the errors of SsrfGuard.pin.
        """
        address = self.address(url)
        if address.protocol == "file":
            return address
        parts = urlsplit(url) if "://" in url else None
        host = (parts.hostname if parts else url.partition(":")[0].rpartition("@")[2]) or ""
        return replace(address, pinned=await self._guard.pin(address.protocol, host, parts.port if parts else None))

    async def check(self, url: str) -> None:
        """Check what is known of a remote without asking anybody. The URL must have passed `complaint`.

        Raises FailedPrecondition: REMOTE_NOT_ALLOWED, ADDRESS_NOT_ALLOWED.
        """
        address = self.address(url)
        host = urlsplit(url).hostname if "://" in url else ""
        with contextlib.suppress(GitError):  # there is no repository yet, or nobody knows the name
            if address.far_side is not None:
                async with address.far_side.repository():
                    return
            elif host and _is_literal(host):
                await self.resolve(url)

    def address(self, url: str) -> Address:
        """Return the address of a remote without resolving its host. The URL must have passed `complaint`."""
        if url.startswith(("/", "file://")):
            path = Path(url.removeprefix("file://"))
            return Address(url, "file", far_side=FarSide(path, self._roots, self._sandboxed))
        return Address(url, urlsplit(url).scheme if "://" in url else "ssh")

    def _url_complaint(self, url: str) -> str | None:
        parts = _split(url)
        if parts is None:
            return "is not a URL"
        if parts.password is not None or (parts.scheme != "ssh" and parts.username is not None):
            return "must not hold a user name or a password: give the token in its own field"
        if parts.query or parts.fragment:
            return "must not hold a query or a fragment"
        if parts.scheme == "file":
            return self._file_url_complaint(parts)
        if parts.scheme not in self._schemes(parts.hostname):
            is_ours = parts.scheme == "http" and parts.hostname is not None and _is_loopback(parts.hostname)
            return _NO_LOOPBACK_HTTP if is_ours else _NOT_ALLOWED
        return _host_complaint(parts.hostname) or _user_complaint(parts.username)

    def _file_url_complaint(self, parts: SplitResult) -> str | None:
        if parts.netloc or "%" in parts.path:
            return "must be file:///absolute/path, without a host or percent signs"
        return self._roots.complaint(Path(parts.path))

    def _schemes(self, host: str | None) -> frozenset[str]:
        loopback = self._loopback_http and host is not None and _is_loopback(host)
        return frozenset({"https", "ssh", "http"} if loopback else {"https", "ssh"})


def _scp_complaint(url: str) -> str | None:
    match = _SCP.fullmatch(url)
    if match is None:
        return _NOT_ALLOWED
    user, host, path = match["user"], match["host"], match["path"]
    if not _HOST.fullmatch(host) or (user is not None and not _USER.fullmatch(user)) or path.startswith("-"):
        return "is not a valid user@host:path"
    return None


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    return None if port == 0 else parts


def _host_complaint(host: str | None) -> str | None:
    # `urlsplit` has removed the brackets of an IPv6 address.
    return None if host is not None and (_HOST.fullmatch(host) or ":" in host) else "names no host"


def _user_complaint(user: str | None) -> str | None:
    return None if user is None or _USER.fullmatch(user) else "has a malformed user name"


def _is_literal(host: str) -> bool:
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
