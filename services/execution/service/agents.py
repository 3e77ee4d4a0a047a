"""The agents that this machine knows by name, and what their programs say of their versions."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import structlog

from services.execution.presets.preset import Preset
from services.execution.presets.presets import Presets
from services.sandbox import aio, environment
from services.sandbox.errors import SandboxError
from services.sandbox.spec import Limits, Mount, SandboxSpec

_TIMEOUT_S: Final = 30.0
_MAX_OUTPUT: Final = 64 * 1024
_MAX_SHOWN: Final = 200

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent that the machine knows. `program` is empty where it is not installed, `version` where it is unknown."""

    name: str
    title: str
    licence: str
    install: str
    program: str = ""
    version: str = ""
    complaint: str = ""
    """Why it cannot be used, and how to fix it; empty when nothing is known to be wrong."""


class Agents:
    """Finds the programs of the presets whenever it is asked, and asks a program its version once for each file."""

    def __init__(self, presets: Presets) -> None:
        self._presets = presets
        self._versions: dict[tuple[str, int, int], tuple[str, str]] = {}

    def describe(self) -> Sequence[Agent]:
        """Return all agents, ordered by name, with the versions that are known by now."""
        return [self._describe(preset) for preset in self._presets.by_name.values()]

    async def run(self, every_s: float) -> None:
        """Ask the programs that have not been asked, now and every `every_s` seconds, until cancelled."""
        while True:
            await self.ask()
            await asyncio.sleep(every_s)

    async def ask(self) -> None:
        """Ask the programs that have not been asked for their versions, one after another."""
        for preset in self._presets.by_name.values():
            program = await asyncio.to_thread(self._presets.tools.find, preset.program)
            if program is not None and (key := _identity(program)) is not None and key not in self._versions:
                self._versions[key] = await self._ask(preset, program)

    def _describe(self, preset: Preset) -> Agent:
        agent = Agent(preset.name, preset.title, preset.licence, preset.install)
        program = self._presets.tools.find(preset.program)
        if program is None:
            return replace(agent, complaint=self._presets.missing(preset.name))
        version, why = self._versions.get(_identity(program) or ("", 0, 0), ("", ""))
        return replace(agent, program=str(program), version=version, complaint=why)

    async def _ask(self, preset: Preset, program: Path) -> tuple[str, str]:
        """Return the version that a program says in a sandbox like its agent's, or an empty text, and why."""
        tools = self._presets.tools
        base = environment.base()
        base["PATH"] = b":".join([base["PATH"], *map(bytes, tools.programs())])
        spec = SandboxSpec(
            argv=(bytes(program), *(part.encode() for part in preset.version)),
            cwd=Path("/tmp"),  # noqa: S108 - of the sandbox
            mounts=tuple(Mount(path) for path in (*tools.for_all, *tools.mounted()) if path.exists()),
            environment=base | {name: value.encode() for name, value in preset.environment.items()},
            limits=Limits(processes=512),
        )
        try:
            answer = await aio.run(spec, max_output=_MAX_OUTPUT, timeout=_TIMEOUT_S)
        except (SandboxError, OSError) as error:
            return self._unknown(preset, program, str(error))
        said = answer.stdout.decode(errors="replace").strip()
        if answer.exit_code != 0 or not said:
            return self._unknown(preset, program, answer.stderr.decode(errors="replace"))
        return _version(said), ""

    @staticmethod
    def _unknown(preset: Preset, program: Path, why: str) -> tuple[str, str]:
        text = f"{program} does not say its version in a sandbox: {_shown(why.strip())}"
        log.warning("an agent cannot be used, it seems", agent=preset.name, why=text)
        return "", text


def _version(said: str) -> str:
    """Return the first line with a digit, as a program may say more than its version; an empty text without one."""
    return next((_shown(line.strip()) for line in said.splitlines() if any(map(str.isdecimal, line))), "")


def _shown(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)[:_MAX_SHOWN]


def _identity(program: Path) -> tuple[str, int, int] | None:
    """Return what changes when a program is replaced by another; None when it has just gone."""
    try:
        real = program.resolve()
        state = real.stat()
    except OSError:
        return None
    return str(real), state.st_mtime_ns, state.st_size
