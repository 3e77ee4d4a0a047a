"""Who answers what agents ask of a model, with the names of the contract, which explains them.

Standard library only: runners import it.
"""

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

EVERYWHERE: Final = ("0.0.0.0/0", "::/0")
"""The networks in which a provider may be that the operator of its agents' machine has named."""

REPLAYED: Final = "(replay)"
"""The name of the provider that a recording is; nobody can give it to another."""

_VERSION: Final = "/v1"


class ModelWire(enum.StrEnum):
    """How a provider is spoken to."""

    MESSAGES = "MESSAGES"
    RESPONSES = "RESPONSES"
    CHAT = "CHAT"
    GEMINI = "GEMINI"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProvider:
    """A provider, with its keys."""

    name: str
    wire: ModelWire
    base_url: str
    keys: tuple[str, ...] = field(default=(), repr=False)
    aliases: Mapping[str, str] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    project_header: str = ""
    ca: str = ""
    allowed_addresses: tuple[str, ...] = ()
    """Where it may be although that is not public, by the word of whoever runs its agents' machine."""


def replayed_providers() -> tuple[ModelProvider, ...]:
    """Return what stands for a recording among an agent's providers: one for each wire."""
    return tuple(ModelProvider(name=REPLAYED, wire=wire, base_url="http://replay.invalid") for wire in ModelWire)


def keys_by_name(providers: Iterable[ModelProvider]) -> dict[str, str]:
    """Return all keys by what people see in their places: the provider's name, from the second on with a number."""
    return {
        each.name if number == 1 else f"{each.name}-{number}": key
        for each in providers
        for number, key in enumerate(each.keys, start=1)
    }


def key_header(wire: ModelWire, key: str) -> tuple[str, str]:
    """Return the header that shows a key to a provider of a wire: its name in lower case, and its value."""
    if wire is ModelWire.GEMINI:
        return "x-goog-api-key", key
    if wire is ModelWire.MESSAGES and not key.startswith("sk-ant-oat"):
        return "x-api-key", key
    return "authorization", f"Bearer {key}"


def path_there(wire: ModelWire, prefix: str, path: str) -> str:
    """Return a wire's path below a base URL's, which has no slash at its end; OpenAI's say the version themselves."""
    if wire in (ModelWire.RESPONSES, ModelWire.CHAT):
        return (prefix or _VERSION) + path.removeprefix(_VERSION)
    return prefix.removesuffix(_VERSION) + path


def with_own(
    known: Iterable[ModelProvider], own: Iterable[ModelProvider], names: Sequence[str]
) -> tuple[ModelProvider, ...]:
    """Return the providers that an agent has: those that are `known`, and of a machine's own those of no known name.

    Where it names some, it has no others, in the order of the names.
    """
    known = tuple(known)
    by_name = {each.name: each for each in own} | {each.name: each for each in known}
    if names:
        return tuple(by_name[name] for name in names if name in by_name)
    known_names = [each.name for each in known]
    return tuple(by_name[name] for name in (*known_names, *(name for name in by_name if name not in known_names)))
