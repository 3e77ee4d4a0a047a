"""Which jobs a cell takes at all: a coordinator may take those of some projects, kinds and engines alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True)
class Takes:
    """Which jobs a cell takes: only those of these projects, kinds and engines; None means any."""

    project_ids: frozenset[str] | None = None
    kinds: frozenset[str] | None = None
    engines: frozenset[str] | None = None

    def refusals(self, project_id: str, kind: str, engine: str) -> Iterator[str]:
        """Yield why it does not take a job, as the end of a sentence."""
        if self.project_ids is not None and project_id not in self.project_ids:
            yield f"takes no jobs of project {project_id}"
        if self.kinds is not None and kind not in self.kinds:
            yield f"takes no jobs of kind {kind}"
        if self.engines is not None and engine not in self.engines:
            yield f"takes no jobs of engine {engine}"


ANY_JOB: Final = Takes()
_TAKES: Final = TypeAdapter(Takes)
_SORTED: Final = TypeAdapter(dict[str, list[str] | None])


def takes_to_column(takes: Takes) -> str:
    """Write which jobs a cell takes into its row; empty for any."""
    if takes == ANY_JOB:
        return ""
    named = {"project_ids": takes.project_ids, "kinds": takes.kinds, "engines": takes.engines}
    return _SORTED.dump_json({name: None if ids is None else sorted(ids) for name, ids in named.items()}).decode()


def takes_of_column(text: str) -> Takes:
    """Read which jobs a cell takes; one that has not said it takes any."""
    return _TAKES.validate_json(text) if text else ANY_JOB
