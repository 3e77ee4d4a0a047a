"""Who may see a page: whoever shows a bearer token that the RPCs take too, of the role that the page is for."""

from typing import Final

import structlog
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from services.common.errors import ServiceError, Status, Unavailable
from services.common.logs import CALLER
from services.common.rpc.auth import AUTHORIZATION_METADATA_KEY, Authenticator, Shown
from services.gateway.auth import scope

_CODES: Final = {Status.UNAUTHENTICATED: 401, Status.PERMISSION_DENIED: 403, Status.UNAVAILABLE: 503}


class Admitting:
    """Asks the gateway's one authenticator, for which a page's path is a method."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    async def to_all_projects(self, request: Request) -> None:
        """Let a caller in to a page that is about all projects.

        Raises Unauthenticated (TOKEN_REQUIRED), PermissionDenied (ROLE_REQUIRED, PROJECT_NOT_ALLOWED), or Unavailable
        while the database, which knows the tokens, is away.
        """
        scheme, _, token = request.headers.get(AUTHORIZATION_METADATA_KEY, "").partition(" ")
        known = token if scheme.lower() == "bearer" and token else None
        shown = Shown(known, request.url.path, _peer(request), dict(request.headers))
        structlog.contextvars.bind_contextvars(**{CALLER: await self._authenticator.authenticate(shown)})
        scope.check_all()


async def refuse(request: Request, error: Exception) -> Response:  # noqa: ARG001 - as Starlette calls it
    """Say in a sentence why a page is not shown. What callers are not to see becomes 500, in Starlette's words."""
    if not isinstance(error, ServiceError) or error.status not in _CODES:
        raise error
    headers = {"WWW-Authenticate": "Bearer"} if error.status is Status.UNAUTHENTICATED else {}
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(round(error.retry_after))
    return PlainTextResponse(f"{error.message}\n", _CODES[error.status], headers)


def _peer(request: Request) -> str:
    """Return where a request comes from, in gRPC's words, as records have it."""
    if request.client is None:
        return ""
    host, port = request.client
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
