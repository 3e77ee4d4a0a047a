"""What a runner is given for its run by the pipe that is its standard input. Standard library only."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from dataclasses import fields as dataclass_fields
from typing import Any

from services.agent.providers import ModelProvider, ModelWire


@dataclass(frozen=True, slots=True)
class Credentials:
    """What its engine needs for itself, and who serves its agent's models."""

    engine: bytes = field(default=b"", repr=False)
    providers: tuple[ModelProvider, ...] = ()

    def to_bytes(self) -> bytes:
        """Serialize for the pipe."""
        fields = {"engine": self.engine.decode("latin-1"), "providers": [asdict(one) for one in self.providers]}
        return json.dumps(fields).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Credentials":
        """Read what `to_bytes` wrote, or the engine's part alone, as a service of an earlier version writes it."""
        fields = json.loads(data) if data else {}
        if "providers" not in fields:
            return cls(data)
        return cls(fields["engine"].encode("latin-1"), tuple(map(_provider, fields["providers"])))


def _provider(fields: Mapping[str, Any]) -> ModelProvider:
    known: dict[str, Any] = {
        one.name: fields[one.name] for one in dataclass_fields(ModelProvider) if one.name in fields
    }
    known |= {name: tuple(known[name]) for name in ("keys", "models") if name in known}
    return ModelProvider(**known | {"wire": ModelWire(known["wire"])})
