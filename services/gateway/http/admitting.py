"""Who may see a page: whoever shows a bearer token that the RPCs take too, of the role that the page is for."""

import math
from typing import Final

import structlog
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from services.common.errors import Exhausted, ServiceError, Status, Unavailable
from services.common.logs import CALLER
from services.common.rpc.auth import AUTHORIZATION_METADATA_KEY, Authenticator, Credentials, bearer
from services.gateway.auth import scope

_CODES: Final = {
    Status.UNAUTHENTICATED: 401,
    Status.PERMISSION_DENIED: 403,
    Status.RESOURCE_EXHAUSTED: 429,
    Status.UNAVAILABLE: 503,
}


class Admitting:
    """Asks the gateway's one authenticator, for which a page's path is a method."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    async def to_all_projects(self, request: Request) -> None:
        """Let a caller in to a page that is about all projects.

        Raises Unauthenticated (TOKEN_REQUIRED), PermissionDenied (ROLE_REQUIRED, PROJECT_NOT_ALLOWED), Exhausted
        (TOO_MANY_FAILURES), or Unavailable while the database, which knows the tokens, is away.
        """
        token = bearer(request.headers.get(AUTHORIZATION_METADATA_KEY, ""))
        shown = Credentials(token, request.url.path, _peer(request), dict(request.headers))
        structlog.contextvars.bind_contextvars(**{CALLER: await self._authenticator.authenticate(shown)})
        scope.check_all()


async def refuse(request: Request, error: Exception) -> Response:  # noqa: ARG001 - as Starlette calls it
    """Say in a sentence why a page is not shown. What callers are not to see becomes 500, in Starlette's words."""
    if not isinstance(error, ServiceError) or error.status not in _CODES:
        raise error
    headers = {"WWW-Authenticate": "Bearer"} if error.status is Status.UNAUTHENTICATED else {}
    if isinstance(error, Unavailable | Exhausted) and error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    return PlainTextResponse(f"{error.message}\n", _CODES[error.status], headers)


def _peer(request: Request) -> str:
    """Return where a request comes from, in gRPC's words, as records have it."""
    if request.client is None:
        return ""
    host, port = request.client
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
