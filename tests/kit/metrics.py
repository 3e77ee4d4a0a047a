"""A cell's metrics as Prometheus sees them."""

import http.client
from collections.abc import Mapping

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families


def get(address: str, path: str, token: str | None = None) -> tuple[int, str]:
    """Send a GET request to the gateway's HTTP server; return the status and the text."""
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request("GET", path, headers={} if token is None else {"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


class Scraped:
    """The result of one scrape."""

    def __init__(self, address: str, token: str) -> None:
        status, self.text = get(address, "/metrics", token)
        assert status == 200, self.text
        self.families: list[Metric] = list(text_string_to_metric_families(self.text))

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of the samples with a name and at least these labels."""
        return sum(
            sample.value
            for family in self.families
            for sample in family.samples
            if sample.name == name and _has(sample.labels, labels)
        )


def _has(labels: Mapping[str, str], required: Mapping[str, str]) -> bool:
    return required.items() <= labels.items()
