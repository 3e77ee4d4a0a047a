"""Where the programs of agents are on this machine: what a sandbox sees, and the operator's tool paths."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.sandbox import environment

SETTING: Final = "BOATYARD_EXECUTION_AGENT_PATHS"
_BELOW: Final = ("", "bin", "node_modules/.bin")
"""Where programs are in a directory that something was installed into: by hand, in a prefix, by npm."""


@dataclass(frozen=True, slots=True)
class ToolPaths:
    """`for_agents` are directories that agents by a preset see, `for_all` those that every sandbox sees."""

    for_agents: tuple[Path, ...] = ()
    for_all: tuple[Path, ...] = ()

    def find(self, program: str) -> Path | None:
        """Return the path of a program, which is the same in a sandbox; None when no sandbox would have it."""
        found = shutil.which(program, path=os.pathsep.join(map(str, self._searched())))
        return Path(found) if found is not None and self._is_visible(Path(found)) else None

    def mounted(self) -> tuple[Path, ...]:
        """Return the directories that agents by a preset see beside what every sandbox sees."""
        return tuple(path for path in self.for_agents if path.is_dir())

    def programs(self) -> tuple[Path, ...]:
        """Return the directories with programs of agents, for the end of their PATH: some call others, such as node."""
        below = (directory / part for directory in self.for_agents for part in _BELOW[1:])
        return tuple(path for path in below if path.is_dir())

    def complaint(self, program: str) -> str:
        """Say where a program was looked for, and, if it is elsewhere on this machine, how a sandbox gets to see it."""
        searched = os.pathsep.join([*map(str, self._searched()), os.environ.get("PATH", "")])
        if (elsewhere := shutil.which(program, path=searched)) is None:
            return f"there is no program {program!r} where sandboxes find programs, nor in {SETTING}"
        real = os.path.realpath(elsewhere)
        its_place = elsewhere if real == elsewhere else f"{elsewhere}, that is {real}"
        return f"its program is {its_place}, which sandboxes do not see: add its installation's directory to {SETTING}"

    def _searched(self) -> Iterator[Path]:
        yield from (directory / part for directory in (*self.for_agents, *self.for_all) for part in _BELOW)
        yield from environment.search_path()

    def _is_visible(self, program: Path) -> bool:
        """True when a sandbox sees the program itself, where the name is that of a symbolic link."""
        seen = (environment.USR, *environment.interpreter_prefixes(), *self.for_agents, *self.for_all)
        real = program.resolve()
        return any(real.is_relative_to(path.resolve()) for path in seen)
