"""A cell's metrics as Prometheus sees them."""

import http.client
from collections.abc import Mapping

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families


def get(address: str, path: str, token: str | None = None) -> tuple[int, str]:
    """Ask the gateway's HTTP server; return status and text."""
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request("GET", path, headers={} if token is None else {"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


class Scraped:
    """What one scrape has told."""

    def __init__(self, address: str, token: str) -> None:
        status, self.text = get(address, "/metrics", token)
        assert status == 200, self.text
        self.families: list[Metric] = list(text_string_to_metric_families(self.text))

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of a name that have these labels, among others."""
        return sum(
            sample.value
            for family in self.families
            for sample in family.samples
            if sample.name == name and _has(sample.labels, labels)
        )


def _has(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return wanted.items() <= labels.items()
