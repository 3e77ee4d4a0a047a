"""What a job needs beside its spec when it begins: its remote, the hooks that it calls, and its files."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from services.lifecycle.model.hook_answers import HookAnswer
from services.lifecycle.model.states import HookEvent
from services.lifecycle.model.value import Recorded

_ROUND: Final = re.compile(r"-\d+$")


@dataclass(frozen=True, slots=True)
class Remote(Recorded):
    """How the git service reaches a repository. Never recorded, because `token` may be a secret."""

    repository_id: str
    url: str
    token: str = field(default="", repr=False)
    ca: str = ""
    push_options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hook(Recorded):
    """Something to call: a line for /bin/sh, or a server: a webhook's URL, or (`is_callback`) one that speaks gRPC.

    `timeout` in seconds, of a URL for each try.
    `must_succeed` is its failure policy: whether the job fails when the hook fails. `stage` is set for BEFORE and
    AFTER only, `on_cancel` for ERROR only. The key or token of a server is never recorded here.
    """

    hook_id: str
    command: str
    timeout: float
    event: HookEvent = HookEvent.PRE
    url: str = ""
    must_succeed: bool = True
    stage: str = ""
    is_callback: bool = False
    on_cancel: bool = False


def plain_stage(stage: str) -> str:
    """Return a stage's name without its round's number: `take` for `take-2`."""
    return _ROUND.sub("", stage)


@dataclass(frozen=True, slots=True)
class Hooks(Recorded):
    """The hooks that a job calls, fixed when it begins: those of all events, in the order in which they are called."""

    hooks: tuple[Hook, ...] = ()

    def by_stage(self, event: HookEvent, stage: str = "") -> dict[str, Hook]:
        """Return the hooks called at an event, by the names of the stages in which they are, in their order.

        Hooks around a stage are called in each of its rounds, such as `take` and `take-2`.
        """
        when = f"{event.lower()}-{stage}" if stage else event.lower()
        chosen = [each for each in self.hooks if (each.event, each.stage) == (event, plain_stage(stage))]
        return {f"{when}-hook-{number}": hook for number, hook in enumerate(chosen, start=1)}

    def called_in(self, stage: str) -> Hook | None:
        """Return the hook that is called in the stage of this name; None when that is no call of a hook."""
        when, is_call, _ = stage.rpartition("-hook-")
        event, _, around = when.partition("-")
        is_known = is_call and event.upper() in HookEvent.__members__
        return self.by_stage(HookEvent[event.upper()], around).get(stage) if is_known else None


@dataclass(frozen=True, slots=True)
class HookResult(Recorded):
    """What a hook that did not fail answered: a message for people, and the answer to the job."""

    message: str = ""
    answer: HookAnswer = field(default_factory=HookAnswer)


@dataclass(frozen=True, slots=True)
class FileContent(Recorded):
    """An input file with its content. `name` is its path below `.boatyard/input`."""

    name: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class JobContext(Recorded):
    """What a driver needs beside the spec, as it is now. `secrets` are the agent's: the spec has their names."""

    remote: Remote | None
    hooks: tuple[Hook, ...]
    files: tuple[FileContent, ...] = ()
    pushed_before: tuple[str, ...] = ()
    """Commits that earlier attempts of the job had begun to push when they were lost."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    recording: bytes = field(default=b"", repr=False)
    """What answers in place of models, as it was submitted; empty for none."""
    has_providers: bool = False
    """Whether the agent has providers of models, which are asked for when it starts."""
    has_budgets: bool = False
    """Whether something bounds what the agent may spend, so that it asks before each request to a model."""
