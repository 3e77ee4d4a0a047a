"""What a runner is given for its run by the pipe that is its standard input. Standard library only."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from dataclasses import fields as dataclass_fields
from typing import Any

from services.agent.providers import ModelProvider, ModelWire


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who serves its agent's models, with their keys."""

    providers: tuple[ModelProvider, ...] = ()

    def to_bytes(self) -> bytes:
        """Serialize for the pipe."""
        return json.dumps({"providers": [asdict(one) for one in self.providers]}).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Credentials":
        """Read what `to_bytes` wrote; the key that a service of an earlier version adds for an engine is left out."""
        fields = json.loads(data) if data else {}
        return cls(tuple(map(_provider, fields.get("providers", ()))))


def _provider(fields: Mapping[str, Any]) -> ModelProvider:
    known: dict[str, Any] = {
        one.name: fields[one.name] for one in dataclass_fields(ModelProvider) if one.name in fields
    }
    known |= {name: tuple(known[name]) for name in ("keys", "models", "allowed_addresses") if name in known}
    return ModelProvider(**known | {"wire": ModelWire(known["wire"])})
