"""Access to pages: for callers with a bearer token that the RPCs accept too, and with the role that a page requires."""

import math
from typing import Final

import structlog
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from services.common.errors import Exhausted, ServiceError, Status, Unavailable
from services.common.logs import CALLER
from services.common.rpc.auth import AUTHORIZATION_METADATA_KEY, Authenticator, Credentials, bearer
from services.common.rpc.peers import address_of, peer_name
from services.common.turns import Pace
from services.gateway import scope as projects
from services.gateway.http.connections import KNOWN

_CODES: Final = {
    Status.UNAUTHENTICATED: 401,
    Status.PERMISSION_DENIED: 403,
    Status.RESOURCE_EXHAUSTED: 429,
    Status.UNAVAILABLE: 503,
}

REQUESTS_PER_SECOND: Final = 100
REQUESTS_AT_ONCE: Final = 100


class Paced:
    """Wraps an application to answer so many requests a second, of addresses in turn: nobody has to prove anything."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._pace = Pace(REQUESTS_PER_SECOND, REQUESTS_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI has it."""
        await self._pace.turn(address_of(_peer(Request(scope))))
        await self._app(scope, receive, send)


class PageAccess:
    """Checks callers with the gateway's authenticator, to which a page's path is a method."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    async def to_all_projects(self, request: Request) -> None:
        """Admit a caller to a page that is about all projects.

        Raises Unauthenticated (TOKEN_REQUIRED), PermissionDenied (ROLE_REQUIRED, PROJECT_NOT_ALLOWED), Exhausted
        (TOO_MANY_FAILURES), or Unavailable while the database, which holds the tokens, is unreachable.
        """
        token = bearer(request.headers.get(AUTHORIZATION_METADATA_KEY, ""))
        credentials = Credentials(token, request.url.path, _peer(request), dict(request.headers))
        caller = await self._authenticator.identify(credentials)
        request.scope["state"][KNOWN] = True
        structlog.contextvars.bind_contextvars(**{CALLER: caller.name})
        self._authenticator.authorize(credentials)
        projects.check_all()


async def refuse(request: Request, error: Exception) -> Response:  # noqa: ARG001 - as Starlette calls it
    """Answer with the reason why a page is refused; raise any other error, which Starlette answers with a bare 500."""
    if not isinstance(error, ServiceError) or error.status not in _CODES:
        raise error
    headers = {"WWW-Authenticate": "Bearer"} if error.status is Status.UNAUTHENTICATED else {}
    if isinstance(error, Unavailable | Exhausted) and error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    return PlainTextResponse(f"{error.message}\n", _CODES[error.status], headers)


def _peer(request: Request) -> str:
    """Return a request's address in gRPC's form, as audit records have it."""
    return "" if request.client is None else peer_name(*request.client)
