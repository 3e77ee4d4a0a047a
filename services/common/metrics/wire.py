"""Converts metrics to messages and back."""

from collections.abc import Iterable
from typing import Final

from boatyard.metrics.v1 import metrics_pb2 as pb
from prometheus_client.metrics_core import Metric

_TYPES: Final = {
    "counter": pb.MetricFamily.TYPE_COUNTER,
    "gauge": pb.MetricFamily.TYPE_GAUGE,
    "histogram": pb.MetricFamily.TYPE_HISTOGRAM,
}
_NAMES: Final = {number: name for name, number in _TYPES.items()}


def response(metrics: Iterable[Metric]) -> pb.ReadMetricsResponse:
    """Write metrics."""
    return pb.ReadMetricsResponse(families=map(_family, metrics))


def metrics(response: pb.ReadMetricsResponse) -> list[Metric]:
    """Read metrics. Those of an unknown type are left out."""
    return [_metric(family) for family in response.families if family.type in _NAMES]


def _family(metric: Metric) -> pb.MetricFamily:
    samples = (pb.MetricSample(name=sample.name, labels=sample.labels, value=sample.value) for sample in metric.samples)
    return pb.MetricFamily(name=metric.name, help=metric.documentation, type=_TYPES[metric.type], samples=samples)


def _metric(family: pb.MetricFamily) -> Metric:
    metric = Metric(family.name, family.help, _NAMES[family.type])
    for sample in family.samples:
        metric.add_sample(sample.name, dict(sample.labels), sample.value)
    return metric
