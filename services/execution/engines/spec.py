"""What an engine makes of its message: the program that runs in the sandbox, and what only the engine understands."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.execution.model import TerminalSize


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """How an agent is to be driven."""

    argv: tuple[bytes, ...]
    """The program in the sandbox."""
    container_argv: tuple[bytes, ...] = ()
    """The same in a container, whose system is its image's, where it is another there."""
    stdin: bytes = b""
    """What it finds on its standard input."""
    terminal: TerminalSize | None = None
    """The size of the terminal that it is started on, if it is."""
    task: Mapping[str, Any] | None = None
    """What the engine itself is asked, as JSON; it travels in the run directory."""
    read_only_paths: tuple[Path, ...] = ()
    """What the sandbox must show for it."""
