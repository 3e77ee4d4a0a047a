"""Metrics of a service's calls: how many there are, how they end, how long they take, how many run at once."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.common.rpc.call import RpcCall

_SECONDS: Final = (0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0)
_LABELS: Final = ("service", "method")


class RpcMetrics:
    """Counts the calls of one service. `around` is a layer for `serve`.

    Only existing methods come here, so a caller of others cannot make new labels.
    """

    def __init__(self, service: str, registry: CollectorRegistry) -> None:
        self._service = service
        self._ended = Counter(
            "boatyard_rpc", "Calls that have ended, by the code they ended with.", [*_LABELS, "code"], registry=registry
        )
        self._refused = Counter(
            "boatyard_rpc_refusals",
            "Calls that were refused, by the reason that their callers were told.",
            [*_LABELS, "reason"],
            registry=registry,
        )
        self._seconds = Histogram(
            "boatyard_rpc_duration_seconds",
            "How long calls with one answer took. Streams are not in it: they last as long as somebody looks.",
            _LABELS,
            buckets=_SECONDS,
            registry=registry,
        )
        self._open = Gauge(
            "boatyard_rpc_in_flight", "Calls being served, streams among them.", _LABELS, registry=registry
        )

    @asynccontextmanager
    async def around(self, call: RpcCall) -> AsyncIterator[None]:
        """Count a call. See `call.Layer`."""
        method = call.method.removeprefix("/")
        in_flight = self._open.labels(self._service, method)
        in_flight.inc()
        try:
            yield
        finally:
            in_flight.dec()
            self._ended.labels(self._service, method, call.status or "OK").inc()
            if call.reason is not None:
                self._refused.labels(self._service, method, call.reason).inc()
            if call.answers_once:
                self._seconds.labels(self._service, method).observe(time.monotonic() - call.started)
