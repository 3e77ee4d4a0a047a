"""What a model is asked to do. Its JSON, with these names, is the task in the run directory."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelTask:
    """What a model is asked to do, and how far it may go. Its sandbox is that of its tools."""

    model: str
    prompt: str
    system_prompt: str
    max_turns: int
    max_tokens: int
    token_budget: int | None
    ask_before: Sequence[str] = ()
    """Tools before each call of which somebody is asked."""
