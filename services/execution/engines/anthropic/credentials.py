"""What is needed to reach a model. It goes to the runner through a pipe, never in a file, argument or environment."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

NETWORK_VARIABLES = (
    *("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR"),
)
"""The variables by which the service's environment configures outgoing connections; runners do not inherit them."""


@dataclass(frozen=True, slots=True)
class ModelCredentials:
    """A key, the URL to use it at, the values of `NETWORK_VARIABLES`, and the path of the table of models."""

    api_key: str = field(repr=False)
    base_url: str
    environment: Mapping[str, str]
    models_file: Path

    def to_bytes(self) -> bytes:
        """Serialize for the pipe."""
        fields = {
            "api_key": self.api_key,
            "base_url": self.base_url,
            "environment": dict(self.environment),
            "models_file": str(self.models_file),
        }
        return json.dumps(fields).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self | None:
        """Read what `to_bytes` wrote; None when the service has no key."""
        if not data:
            return None
        fields = json.loads(data)
        return cls(fields["api_key"], fields["base_url"], fields["environment"], Path(fields["models_file"]))
