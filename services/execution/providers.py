"""Who serves models, and how a runner is told of it: by the pipe that is its standard input. Standard library only."""

import enum
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from dataclasses import fields as dataclass_fields
from typing import Any


class Wire(enum.StrEnum):
    """How one speaks to a model: the API of Anthropic, either of OpenAI's, or Google's."""

    MESSAGES = "MESSAGES"
    RESPONSES = "RESPONSES"
    CHAT = "CHAT"
    GEMINI = "GEMINI"


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider, with its keys. `aliases` maps what an agent may call a model to what the provider calls it."""

    name: str
    wire: Wire
    base_url: str
    keys: tuple[str, ...] = field(default=(), repr=False)
    """Those that are tried one after another; without any, requests go out without a key."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    """The models that it has; empty: any."""
    project_header: str = ""
    """Whom the provider charges, if it must be told; empty: it knows by the key."""
    ca: str = ""
    """The certificates that it is recognized by, as PEM; empty: those of the system."""

    def model(self, asked: str) -> str | None:
        """Return the provider's name for a model that an agent asks for; None when it has no such model."""
        name = self.aliases.get(asked, asked)
        return name if not self.models or name in self.models else None


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a runner is given for its run: what its engine needs for itself, and the providers for the door."""

    engine: bytes = field(default=b"", repr=False)
    providers: tuple[Provider, ...] = ()

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
        return cls(fields["engine"].encode("latin-1"), tuple(_provider(one) for one in fields["providers"]))


def keys_by_name(providers: Iterable[Provider]) -> dict[str, bytes]:
    """Return all keys by the names that stand for them where they are redacted."""
    return {
        f"{provider.name}.{number}": key.encode()
        for provider in providers
        for number, key in enumerate(provider.keys, start=1)
    }


def _provider(fields: Mapping[str, Any]) -> Provider:
    known: dict[str, Any] = {one.name: fields[one.name] for one in dataclass_fields(Provider) if one.name in fields}
    known |= {name: tuple(known[name]) for name in ("keys", "models") if name in known}
    return Provider(**known | {"wire": Wire(known["wire"])})
