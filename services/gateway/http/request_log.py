"""Every HTTP request, counted and told to the log, whatever came of it."""

import time
from collections.abc import Container
from http import HTTPStatus

import structlog
from prometheus_client import CollectorRegistry, Counter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = structlog.get_logger()


class RequestLog:
    """An application with its requests counted: by path where that is one of `paths`, and else together."""

    def __init__(self, app: ASGIApp, paths: Container[str], registry: CollectorRegistry) -> None:
        self._app = app
        self._paths = paths
        self._answered = Counter(
            "boatyard_http_requests",
            "HTTP requests that this cell's gateway has answered, by path and status code.",
            ["path", "code"],
            registry=registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        began = time.monotonic()
        status = int(HTTPStatus.INTERNAL_SERVER_ERROR)

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception:  # Starlette has answered it with 500, and raises it for the log
            log.exception("unexpected error", path=scope["path"])
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._answered.labels(path, status).inc()
            write = log.debug if status < HTTPStatus.BAD_REQUEST else log.warning
            write("http", method=scope["method"], path=path, status=status, seconds=round(time.monotonic() - began, 6))
