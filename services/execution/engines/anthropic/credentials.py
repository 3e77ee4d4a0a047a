"""What reaches a model. It travels from the service to a runner by pipe, and is in no file, argument or environment."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

NETWORK_VARIABLES = (
    *("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR"),
)
"""How the service's own environment says to leave this machine; runners have none of it otherwise."""


@dataclass(frozen=True, slots=True)
class ModelCredentials:
    """A key, where to show it, and what stands in `NETWORK_VARIABLES`."""

    api_key: str = field(repr=False)
    base_url: str
    environment: Mapping[str, str]
    models_file: Path

    def to_bytes(self) -> bytes:
        """Write it for the pipe."""
        fields = {
            "api_key": self.api_key,
            "base_url": self.base_url,
            "environment": dict(self.environment),
            "models_file": str(self.models_file),
        }
        return json.dumps(fields).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self | None:
        """Read it; None where the service has no key."""
        if not data:
            return None
        fields = json.loads(data)
        return cls(fields["api_key"], fields["base_url"], fields["environment"], Path(fields["models_file"]))
