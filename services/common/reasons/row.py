"""What is said of one reason."""

import enum
from dataclasses import dataclass
from typing import Final


class Source(enum.StrEnum):
    """Who finds a reason out."""

    WORKSPACE = "workspace"
    GIT = "git"
    EXECUTION = "execution"
    DRIVER = "driver"
    LEDGER = "ledger"
    HOOK = "hook"
    PERSON = "person"


class Retried(enum.StrEnum):
    """Whether another attempt follows."""

    BY_DEFAULT = "yes"
    """Unless the job's policy has a list of its own: it is a failure of machines and networks, not of work."""
    IF_LISTED = "no"
    """Only when the job's policy lists the reason."""
    NEVER = "never"
    """It is a decision, or a retry would cost the same again: no policy may list it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonRow:
    """A reason, and what people should know about it."""

    reason: str
    meaning: str
    """What has happened, in one sentence, without a full stop."""
    sources: tuple[Source, ...]
    retried: Retried = Retried.IF_LISTED
    advice: str
    """What people can do, naming the command or setting, in one sentence without a full stop."""
    part_of: str = ""
    """The reason that this one was a part of before it had a name: whoever lists that one to be retried means both."""
    advised_by: tuple[str, ...] = ()
    """Words that a message has when it gives advice by itself. The row's advice is not added to such a message."""

    @property
    def retried_by_default(self) -> bool:
        """True when there is another attempt unless the job's policy says otherwise."""
        return self.retried is Retried.BY_DEFAULT


EVERY_MESSAGE: Final = ("",)
"""For `advised_by`: each message has advice, or is in somebody's own words, to which nothing is added."""
