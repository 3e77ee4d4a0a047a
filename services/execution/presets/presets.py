"""All presets of a machine, and the programs of their agents."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.execution.presets.preset import Preset, PresetError, read_preset
from services.execution.presets.tools import ToolPaths

_BUILTIN: Final = Path(__file__).with_name("builtin")


@dataclass(frozen=True, slots=True)
class Presets:
    """The presets by their names, and where their programs are looked up."""

    by_name: Mapping[str, Preset]
    tools: ToolPaths

    @classmethod
    def load(cls, directory: Path | None, tools: ToolPaths) -> "Presets":
        """Read our presets, and those of a directory, which replace ours of the same name. Raises PresetError."""
        found = {preset.name: preset for preset in map(read_preset, _files(_BUILTIN))}
        if directory is not None:
            if not directory.is_dir():
                raise PresetError(f"{directory} is no directory")
            found |= {preset.name: preset for preset in map(read_preset, _files(directory))}
        return cls(dict(sorted(found.items())), tools)

    def missing(self, name: str) -> str:
        """Return why an agent cannot be started outside of an image, and how to fix it; empty when it can be."""
        if (preset := self.by_name.get(name)) is None:
            return f"this machine has no agent {name!r}; it has {', '.join(self.by_name) or 'none'}"
        if self.tools.find(preset.program) is not None:
            return ""
        return (
            f"{preset.title} is not installed: {self.tools.complaint(preset.program)}. To install it: {preset.install}"
        )


def _files(directory: Path) -> Iterable[Path]:
    return sorted(directory.glob("*.toml"))
