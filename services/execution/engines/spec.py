"""What an engine derives from its message: the program to run in the sandbox, and what only the engine understands."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.execution.model import TerminalSize


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """How an agent is to be driven."""

    argv: tuple[bytes, ...]
    """The program to run in the sandbox."""
    container_argv: tuple[bytes, ...] = ()
    """The program to run in a container, whose system comes from its image; empty when it is the same."""
    stdin: bytes = b""
    """What the program reads from its standard input."""
    terminal: TerminalSize | None = None
    """The size of the terminal that the program is started on; None for no terminal."""
    task: Mapping[str, Any] | None = None
    """The task for the engine itself, as JSON; it is passed on in the run directory."""
    read_only_paths: tuple[Path, ...] = ()
    """Paths that the sandbox must make visible to the program."""
