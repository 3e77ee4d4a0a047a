"""What of a door's traffic is recorded, and what is replayed in place of providers: nothing, for most."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from services.agent.providers import ModelProvider
from services.agent.recordings import Matching, RecordingError
from services.execution.door.recording import Recording
from services.execution.door.replay import Replay, ReplayUpstream
from services.execution.door.reports import Reporter
from services.execution.door.upstream import Upstream
from services.redaction.strand import Redactor


@dataclass(frozen=True, slots=True)
class Tapes:
    """The file to record to, and the one to replay; None where that is not asked for.

    `redactor` keeps the execution's secrets out of both. `head` says what is recorded; `floor_bytes` stay free on the
    disk. `workspace` is the path at which the agent has its files.
    """

    record_to: Path | None = None
    replay_from: Path | None = None
    matching: Matching = Matching.STRICT
    redactor: Redactor = field(default_factory=Redactor)
    head: Mapping[str, Any] = field(default_factory=dict)
    floor_bytes: int = 0
    workspace: str = ""

    def recording(self) -> Recording | None:
        """Open the file to record to. Raises OSError."""
        if self.record_to is None:
            return None
        head = {**self.head, "workspace": self.workspace}
        return Recording(self.record_to, self.redactor, head, self.floor_bytes)

    def upstreams(self, reports: Reporter) -> Callable[[ModelProvider], Upstream]:
        """Return what makes the connections to a provider, or to the recording in its place. Raises OSError."""
        if self.replay_from is None:
            return Upstream
        try:
            replay: Replay | RecordingError = Replay(
                self.replay_from, self.matching, self.redactor.bytes, self.workspace
            )
        except RecordingError as error:
            replay = error
        return lambda provider: ReplayUpstream(provider, replay, reports)


NO_TAPES: Final = Tapes()
