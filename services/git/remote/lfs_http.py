"""Calls of Git LFS by HTTP: each address is judged as a remote's is, and only the remote's own server sees its token.

A server of Git LFS names other servers, from which objects are got. So they could be this machine's, or its network's.
What a request says to one server is for that one: who is sent on to another shows that neither a login nor headers.
"""

import asyncio
import contextlib
import ssl
from base64 import b64encode
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import urljoin, urlsplit

import httpx2

from services.common.errors import ServiceError
from services.git.gitcmd import GitError
from services.git.gitmodules import origin
from services.git.model import Remote
from services.git.remote.addresses import TOKEN_USER, AddressBook
from services.git.remote.lfs_batch import Endpoint, said

_MOST_REDIRECTS: Final = 3
_MOST_HOSTS: Final = 16  # connections to each are kept until the end
_CONNECT_SECONDS: Final = 20.0
_ERROR_BYTES: Final = 16 << 10
# What any server may know of a request; all else is for the server that it was made to.
_FOR_ANYBODY: Final = {"accept", "content-type", "content-length"}
_LONGEST_RETRY_AFTER_SECONDS: Final = 30
_AGAIN: Final = {408, 429}  # beside 5xx
_DENIED: Final = {401, 403}
# Servers without the space, or the right, say these for good.
_FINAL: Final = {501, 507, 509}


class LfsError(GitError):
    """A server of Git LFS cannot be asked, or refuses; the message says why, and has nothing secret.

    `status` is that of its answer, 0 without one. What `may_pass` may work when it is tried again, after
    `retry_after` seconds if the server said so.
    """

    def __init__(self, message: str, *, status: int = 0, may_pass: bool = False, retry_after: int = 0) -> None:
        super().__init__("lfs", message)
        self.status = status
        self.may_pass = may_pass
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class LfsCall:
    """One request. `needs_login`: a server for which we have a login is shown it, if `headers` do not log in already.

    `content` is a function where it is long: each server to which the request is sent on gets it from the beginning.
    """

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    needs_login: bool = True
    content: bytes | Callable[[], AsyncIterable[bytes]] | None = field(default=None, repr=False)


class LfsSession:
    """The calls for one remote, over connections that are kept until it is closed.

    Args:
        addresses: decides where calls may go.
        remote: whose objects are asked for.
        endpoint: where they are, and what logs in there.
        certificates: a file of those that vouch for servers; empty means the machine's.
        silence_seconds: after how long in which nothing comes or goes a server counts as gone.
    """

    def __init__(
        self, addresses: AddressBook, remote: Remote, endpoint: Endpoint, certificates: str, silence_seconds: float
    ) -> None:
        self._addresses = addresses
        self._remote = remote
        self._logins = {**_login_of(remote), **({origin(endpoint.url): endpoint.headers} if endpoint.headers else {})}
        self._certificates = certificates
        self._timeout = httpx2.Timeout(silence_seconds, connect=min(silence_seconds, _CONNECT_SECONDS), pool=None)
        self._clients: dict[tuple[str, bool], httpx2.AsyncClient] = {}
        self._contexts: dict[bool, ssl.SSLContext] = {}

    async def close(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.aclose()

    @contextlib.asynccontextmanager
    async def call(self, call: LfsCall) -> AsyncIterator[httpx2.Response]:
        """Make a call; give the answer, whose status is 2xx, to be read. Raises LfsError.

        Whatever a redirect's status, the same request is made again, as the client of Git LFS does.
        """
        url = _address(call.url)
        try:
            for _ in range(_MOST_REDIRECTS + 1):
                async with self._send(call, url) as response:
                    if not response.has_redirect_location:
                        await _check(response, url)
                        yield response
                        return
                    following = _address(url, response.headers["location"])
                if origin(following) != origin(url):
                    call = _for_anybody(call)
                url = following
        except httpx2.TransportError as error:
            raise LfsError(f"{_host(url)}: {_words(error)}", may_pass=True) from error
        raise LfsError(f"{_host(call.url)} redirects more than {_MOST_REDIRECTS} times")

    @contextlib.asynccontextmanager
    async def _send(self, call: LfsCall, url: str) -> AsyncIterator[httpx2.Response]:
        is_own = origin(url) == origin(self._remote.url)
        pinned = await self._judge(url)
        headers = {"accept-encoding": "identity", "user-agent": "Boatyard (git-lfs)", **call.headers}
        if call.needs_login and not _logs_in(headers):
            headers |= self._logins.get(origin(url), {})
        target = httpx2.URL(url)
        # A connection is for one name: another one at the same address has another certificate.
        client = await self._client(target.netloc.decode() if pinned else "", is_own=is_own)
        extensions = {}
        if pinned:
            headers["host"] = target.netloc.decode()
            extensions = {"sni_hostname": target.raw_host.decode()}  # also the name that its certificate must have
            target = target.copy_with(host=pinned)
        content = call.content() if callable(call.content) else call.content
        async with client.stream(
            call.method, target, headers=headers, content=content, extensions=extensions
        ) as response:
            yield response

    async def _judge(self, url: str) -> str:
        """Return the address to connect to; empty for a literal one, or a proxy. Raises LfsError: it is not allowed."""
        parts = urlsplit(url)
        bare = parts._replace(query="", fragment="").geturl()
        if parts.scheme not in {"https", "http"} or (complaint := self._addresses.complaint(bare)):
            complaint = complaint if parts.scheme in {"https", "http"} else "must be https"
            raise LfsError(f"the address of {_host(url)} {complaint}")
        try:
            pinned = (await self._addresses.resolve(bare)).pinned
        except ServiceError as error:
            raise LfsError(str(error)) from error
        except GitError as error:  # the name has no address
            raise LfsError(str(error), may_pass=True) from error
        return pinned.split(":", 2)[2].split(",")[0].strip("[]") if pinned else ""

    async def _client(self, pinned: str, *, is_own: bool) -> httpx2.AsyncClient:
        """Return the client for a name that we look up, or for all others. The remote's CA is for its own server."""
        if is_own not in self._contexts:
            self._contexts[is_own] = await asyncio.to_thread(self._tls, is_own=is_own)
        kind = (pinned, is_own)
        if kind not in self._clients:
            if len(self._clients) >= _MOST_HOSTS:
                raise LfsError(f"its server names more than {_MOST_HOSTS} other servers")
            self._clients[kind] = httpx2.AsyncClient(
                verify=self._contexts[is_own], timeout=self._timeout, trust_env=not pinned, follow_redirects=False
            )
        return self._clients[kind]

    def _tls(self, *, is_own: bool) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self._certificates or None)
        if is_own and self._remote.ca:
            context.load_verify_locations(cadata=self._remote.ca)
        return context


async def read_bounded(response: httpx2.Response, limit: int) -> bytes:
    """Return the body of an answer. Raises LfsError: it is longer than `limit` bytes."""
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > limit:
            raise LfsError(f"the answer is longer than {limit} bytes")
    return bytes(body)


async def _check(response: httpx2.Response, url: str) -> None:
    """Raise LfsError for an answer that is no success."""
    status = response.status_code
    if response.is_success:
        return
    words = ""
    with contextlib.suppress(LfsError):
        words = said(await read_bounded(response, _ERROR_BYTES))
    wish = response.headers.get("retry-after", "")
    may_pass = status in _AGAIN or (status >= 500 and status not in _FINAL)
    verb = "returned error:" if may_pass or status in _DENIED else "answers"  # the former is known to refusals.py
    raise LfsError(
        f"{_host(url)} {verb} {status}{f' ({words})' if words else ''}",
        status=status,
        may_pass=may_pass,
        retry_after=min(int(wish), _LONGEST_RETRY_AFTER_SECONDS) if wish.isdecimal() and len(wish) < 8 else 0,
    )


def _address(url: str, reference: str = "") -> str:
    """Return the URL that a reference of a server's leads to from another. Raises LfsError: it is none."""
    try:
        found = urljoin(url, reference)
        urlsplit(found)
        httpx2.URL(found)
    except (ValueError, httpx2.InvalidURL) as error:
        raise LfsError("the server names an address that is no URL") from error
    return found


def _login_of(remote: Remote) -> dict[str, Mapping[str, str]]:
    """Return what logs in at the remote's own server, by its origin: its token, which is no key of ssh."""
    if not remote.token or not remote.url.startswith(("https://", "http://")):
        return {}
    login = b64encode(f"{TOKEN_USER}:{remote.token}".encode()).decode()
    return {origin(remote.url): {"authorization": f"Basic {login}"}}


def _for_anybody(call: LfsCall) -> LfsCall:
    """Return a call without what it says to the server that it was made to."""
    headers = {name: value for name, value in call.headers.items() if name.lower() in _FOR_ANYBODY}
    return replace(call, headers=headers, needs_login=False)


def _logs_in(headers: Mapping[str, str]) -> bool:
    return any(name.lower() == "authorization" for name in headers)


def _host(url: str) -> str:
    """Return the part of a URL that may be shown: what follows may be a secret."""
    try:
        return urlsplit(url).hostname or "the server"
    except ValueError:
        return "the server"


def _words(error: Exception) -> str:
    if isinstance(error, httpx2.TimeoutException):
        return "timed out"
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return f"certificate verify failed: {text}"
    what = "Failed to connect" if isinstance(error, httpx2.ConnectError) else "hung up unexpectedly"
    return f"{what}: {text or type(error).__name__}"
