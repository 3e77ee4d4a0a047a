"""What a runner needs to know to hold a conversation; the run directory has it as JSON, with these names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationTask:
    """How an agent is spoken to; its prompt is what other programs have on their standard input."""

    mode: str = ""
    """The mode in which the agent works, by its own name for it; empty for the mode that it begins in."""
    model: str = ""
    """The model that it is told to ask, if it offers that; empty for its own."""
    system_prompt: str = ""
    ask_before: Sequence[str] = ()
    """The kinds of tools for which a person is asked."""
    refuse: Sequence[str] = ()
    """The kinds of tools that are refused."""

    @property
    def is_held(self) -> bool:
        """True when the agent may not do all that it asks for."""
        return bool(self.ask_before or self.refuse)

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "ConversationTask":
        """Read a task that this version or another has written."""
        return cls(**{each.name: fields[each.name] for each in dataclass_fields(cls) if each.name in fields})
