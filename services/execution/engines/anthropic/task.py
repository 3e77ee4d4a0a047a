"""What a model is asked to do. The task in the run directory is its JSON, with these field names."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelTask:
    """What a model is asked to do, and the limits on it. Its sandbox is that of its tools."""

    model: str
    prompt: str
    system_prompt: str
    max_turns: int
    max_tokens: int
    token_budget: int | None
    ask_before: Sequence[str] = ()
    """The tools whose every call needs permission from a person first."""
