"""Counts and logs every HTTP request, whatever its outcome."""

import time
from collections.abc import Container
from http import HTTPStatus

import structlog
from prometheus_client import CollectorRegistry, Counter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = structlog.get_logger()


class RequestLog:
    """Wraps an application to count and log its requests: by path for those in `paths`, all others together."""

    def __init__(self, app: ASGIApp, paths: Container[str], registry: CollectorRegistry) -> None:
        self._app = app
        self._paths = paths
        self._requests = Counter(
            "boatyard_http_requests",
            "HTTP requests that this cell's gateway has answered, by path and status code.",
            ["path", "code"],
            registry=registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI has it."""
        began = time.monotonic()
        status = int(HTTPStatus.INTERNAL_SERVER_ERROR)

        async def note_status_and_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note_status_and_send)
        except Exception:  # Starlette has answered with 500, and raises the error again for the log
            log.exception("unexpected error", path=scope["path"])
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._requests.labels(path, status).inc()
            write = log.debug if status < HTTPStatus.BAD_REQUEST else log.warning
            write("http", method=scope["method"], path=path, status=status, seconds=round(time.monotonic() - began, 6))
