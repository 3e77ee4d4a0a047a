"""Structured logs on standard error: formatted for people on a terminal, otherwise one JSON object a line.

Modules log with `structlog.get_logger()`: a short event, and facts as keyword arguments. Whatever is bound to the
task's context (above all the request id) is on every line; `rpc/channel` passes the request id to other services.
"""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

from services.common import display, lossy

REQUEST_ID = "request_id"
CALLER = "caller"

_LOST = "lines of this log are missing: they could not be written"


def use_lossy_stderr(service: str) -> None:
    """Replace this process's standard error by one that drops and counts what cannot be written: see `lossy`."""

    def notice(lines: int, why: str) -> str:
        if sys.stderr.isatty():
            return f"{lines} {_LOST} ({why})"
        facts = {"lines": lines, "why": why, "event": _LOST, "service": service, "level": "warning"}
        return json.dumps({**facts, "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z")})

    lossy.replace_stderr(notice)


def configure(service: str, level: str = "INFO") -> None:
    """Set up logging for this process; `service` is on every line."""
    structlog.contextvars.bind_contextvars(service=service)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    terminal = sys.stderr.isatty()
    rendering: list[Processor] = (
        # A traceback's local variables would show tokens.
        [
            _event_on_one_line,
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.RichTracebackFormatter(show_locals=False)),
            _visible,
        ]
        if terminal
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
    _bridge_standard_logging(shared, rendering, level)


def current_request_id() -> str | None:
    """Return the id of the request that this task works for."""
    value = structlog.contextvars.get_contextvars().get(REQUEST_ID)
    return value if isinstance(value, str) else None


def current_caller() -> str:
    """Return the caller of the request that this task works for; empty for work of our own."""
    value = structlog.contextvars.get_contextvars().get(CALLER)
    return value if isinstance(value, str) else ""


@contextmanager
def request(request_id: str) -> Iterator[None]:
    """Use `request_id` inside: for work that no incoming RPC started, such as a driver's."""
    with structlog.contextvars.bound_contextvars(**{REQUEST_ID: request_id}):
        yield


def _event_on_one_line(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Escape what a library logs; ConsoleRenderer does so with the other values."""
    return {**event, "event": display.one_line(str(event.get("event", "")))}


def _visible(_logger: object, _method: str, rendered: Any) -> str:  # noqa: ANN401 - the text of the renderer
    """Leave nothing for a terminal but text and colours: of what is logged, others have chosen much."""
    return display.coloured(rendered)


class _DropClientsThatLeave(logging.Filter):
    """gRPC logs a traceback at ERROR for every client that disconnects during a write, which is not an error."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.CRITICAL


def _bridge_standard_logging(shared: list[Processor], rendering: list[Processor], level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(logging.getLevelNamesMapping()[level.upper()], logging.WARNING))
    logging.getLogger("grpc._cython.cygrpc").addFilter(_DropClientsThatLeave())
