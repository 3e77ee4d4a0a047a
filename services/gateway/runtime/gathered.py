"""What several cells have answered to one question."""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Part(Generic[Answer]):
    """What one cell has answered: how many things, and the token of its next page."""

    answer: Answer
    count: int
    token: str


@dataclass(slots=True)
class Gathered(Generic[Answer]):
    """One page: what the cells have answered, by cell, and which did not."""

    answers: list[tuple[str, Answer]] = field(default_factory=list)
    unreachable: list[str] = field(default_factory=list)
    next_page_token: str = ""
