"""What models were used for, as counters that the database has: of all cells, ever."""

from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric

from services.agent.usage import UsageSum

_SAME_ON_ALL_CELLS: Final = "Every cell on one database reports the same value: take the max, not the sum."
_SERIES: Final = ("project", "provider", "model")
_CLASSES: Final = ("input", "output", "cache_read", "cache_write")


def usage_metrics(usage: Mapping[tuple[str, str, str], UsageSum]) -> Iterator[Metric]:
    """Yield the metrics of what was used by project, provider and model."""
    requests = _counter("requests", "Requests that models answered")
    unpriced = _counter("unpriced_requests", "Requests that models answered whose cost is not known")
    tokens = _counter("tokens", "Tokens that models read and wrote, by class", *_SERIES, "class")
    dollars = _counter("cost_dollars", "What requests to models cost whose price is known, in US dollars")
    for key, sums in sorted(usage.items()):
        requests.add_metric(key, sums.requests)
        unpriced.add_metric(key, sums.unpriced_requests)
        dollars.add_metric(key, sums.cost_usd or 0.0)
        classes = {name: getattr(sums, f"{name}_tokens") for name in _CLASSES}
        for name, count in {**classes, "unknown": sums.tokens - sum(classes.values())}.items():
            tokens.add_metric([*key, name], count)
    yield from (requests, unpriced, tokens, dollars)


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"boatyard_usage_{name}", f"{text}. {_SAME_ON_ALL_CELLS}", labels=labels or _SERIES)
