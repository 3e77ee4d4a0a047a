"""Assembles what the gateway serves over HTTP."""

from collections.abc import Sequence
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from services.common.errors import ServiceError
from services.common.metrics import Meters
from services.common.rpc.auth import Authenticator
from services.common.rpc.draining import Draining
from services.gateway.http.access import Paced, PageAccess, refuse
from services.gateway.http.metrics import CONTENT_TYPE, Node, SharedScrapes
from services.gateway.http.request_log import RequestLog
from services.gateway.values.principal import Role

METRICS: Final = "/metrics"
API_METRICS: Final = "/api/metrics"
"""Where the systems before this one served them: the same page."""
HEALTH: Final = "/healthz"
PAGES: Final = {METRICS: Role.VIEWER, API_METRICS: Role.VIEWER}
"""The role that a caller's token must have, by path. Other paths are open to everybody."""


def http_app(meters: Meters, nodes: Sequence[Node], authenticator: Authenticator, draining: Draining) -> ASGIApp:
    """Return the ASGI application. `authenticator` has to know the paths of PAGES, as methods."""
    access, scrapes = PageAccess(authenticator), SharedScrapes(meters, nodes)

    async def metrics(request: Request) -> Response:
        await access.to_all_projects(request)
        return Response(await scrapes.scrape(), media_type=CONTENT_TYPE)

    async def health(request: Request) -> Response:  # noqa: ARG001 - a handler's signature
        is_ending = draining.is_set()
        return PlainTextResponse("draining\n" if is_ending else "ok\n", status_code=503 if is_ending else 200)

    pages = Starlette(
        routes=[*(Route(path, metrics) for path in PAGES), Route(HEALTH, health)],
        exception_handlers={ServiceError: refuse},
    )
    return Paced(RequestLog(pages, {*PAGES, HEALTH}, meters.registry))
