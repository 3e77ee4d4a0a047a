"""One agent by name: how to start it, and what its output means. Read from a TOML file, and checked when it is read."""

import re
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any, Final, get_args, get_origin, get_type_hints

from services.execution.model import Reason

PROGRAM_VARIABLE: Final = "BOATYARD_AGENT_PROGRAM"
"""The variable that has the program's path, for the preset's line."""

ACP: Final = "acp"
"""The reader of an agent that is spoken to by the Agent Client Protocol."""

READERS: Final = ("claude", "codex", "gemini", "opencode", "text", ACP)
"""What reads the lines of an agent: the modules of `engines.command.readers`, and `engines.command.acp`."""

WIRES: Final = ("messages", "responses", "chat", "gemini")
"""The ways of asking a model: Anthropic Messages, OpenAI Responses, Chat Completions, Gemini generateContent."""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PROGRAM: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")


class PresetError(Exception):
    """A file is no preset; the message names the file and the key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """How an agent is started, and what it does. The fields are the keys of its file, whose stem is the name."""

    name: str
    title: str
    licence: str
    """An SPDX identifier, where it has one."""
    install: str
    """How to install it, for people."""
    program: str
    """The name of its program, which is looked up on the tool paths of the machine, or in the image."""
    line: str
    """A line for /bin/sh, with the prompt on its standard input, or the protocol of reader `acp`. It finds the program
    in BOATYARD_AGENT_PROGRAM, the model and the system prompt, where there are any, in BOATYARD_MODEL and
    BOATYARD_SYSTEM_PROMPT. In a later round, and where it goes on from a snapshot, BOATYARD_SESSION_ID is the session
    of the agent before it, whose HOME it has: as its reader found it, or `last`. The prompt is whole all the same, for
    an agent that has no such session."""
    version: tuple[str, ...] = ("--version",)
    """The arguments by which the program says its version, in the first line with a digit."""
    reader: str = "text"
    """What reads its lines, out of READERS."""
    wires: tuple[str, ...] = ()
    """How it can ask its model, out of WIRES, the best first."""
    done: str = ""
    """For reader `text`, a regular expression that is found in the output of an agent that has done its work."""
    failed: str = ""
    """For reader `text`, one that is found in the output of an agent that could not do its work."""
    mode: str = ""
    """For reader `acp`, the mode in which the agent asks nobody, by its own name for it."""
    asking_mode: str = ""
    """For reader `acp`, the mode in which it asks before it calls a tool that changes something; empty when it has
    none. Its line then finds BOATYARD_AGENT_ASKS too."""
    leave_out: tuple[str, ...] = ()
    """What it leaves in the workspace that is no result, as patterns of a .gitignore file."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Its environment, which the job's own overrides."""
    home: Mapping[str, str] = field(default_factory=dict)
    """Files that it finds in HOME, by their paths there, unless there are files of that name."""
    exit_codes: Mapping[int, Reason] = field(default_factory=dict)
    """Why it ends with an exit code, where that is known; it is AGENT_FAILED otherwise."""

    def complaints(self) -> Iterator[tuple[str, str]]:
        """Yield (key, rule) for what the types do not say."""
        if not _NAME.fullmatch(self.name):
            yield "file name", "must be of a-z, 0-9 and '-', and end in .toml"
        for key in ("title", "licence", "install", "program", "line"):
            if not getattr(self, key).strip() or "\0" in getattr(self, key):
                yield key, "must not be empty, nor have NUL in it"
                return
        yield from self._complaints_about_the_command()
        yield from self._complaints_about_the_output()
        for name, value in self.environment.items():
            if not _VARIABLE.fullmatch(name) or "\0" in value:
                yield f"environment.{name}", "must be a variable's name, with a value without NUL"
        for path, content in self.home.items():
            parts = PurePosixPath(path).parts
            if not parts or path.startswith("/") or ".." in parts or "\0" in path + content:
                yield f'home."{path}"', "must be a path below HOME, with a text without NUL"

    def _complaints_about_the_command(self) -> Iterator[tuple[str, str]]:
        if not _PROGRAM.fullmatch(self.program):
            yield "program", "must be a program's name, without a directory"
        if PROGRAM_VARIABLE not in self.line:
            yield "line", f"must start ${PROGRAM_VARIABLE}, which is the program's path"
        elif subprocess.run(["/bin/sh", "-n", "-c", self.line], capture_output=True, check=False).returncode != 0:
            yield "line", "is no line for /bin/sh"
        yield from ((f"wires.{wire}", f"must be one of {', '.join(WIRES)}") for wire in self.wires if wire not in WIRES)

    def _complaints_about_the_output(self) -> Iterator[tuple[str, str]]:
        if self.reader not in READERS:
            yield "reader", f"must be one of {', '.join(READERS)}"
        for key in ("mode", "asking_mode"):
            if getattr(self, key) and self.reader != ACP:
                yield key, f"is for reader {ACP} alone, and the reader is {self.reader}"
        for key in ("done", "failed"):
            pattern = getattr(self, key)
            if pattern and self.reader != "text":
                yield key, f"is for reader text alone, and the reader is {self.reader}"
            try:
                re.compile(pattern)
            except re.error as error:
                yield key, f"is no regular expression: {error}"


def read_preset(path: Path) -> Preset:
    """Read a preset's file. Raises PresetError."""
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
        raise PresetError(f"{path} is no preset: {error}") from error
    if unknown := sorted(document.keys() - _TYPES.keys()):
        raise PresetError(f"{path}: {unknown[0]} is no key of a preset; there are {', '.join(sorted(_TYPES))}")
    if missing := sorted(_REQUIRED - document.keys()):
        raise PresetError(f"{path}: {missing[0]} is missing")
    preset = Preset(name=path.stem, **{key: _value(path, key, content) for key, content in document.items()})
    for key, rule in preset.complaints():
        raise PresetError(f"{path}: {key} {rule}")
    return preset


def _value(path: Path, key: str, content: object) -> Any:  # noqa: ANN401 - of the field's own type
    try:
        return _convert(_TYPES[key], content)
    except (TypeError, ValueError) as error:
        raise PresetError(f"{path}: {key} {error}") from None


def _convert(kind: Any, content: object) -> Any:  # noqa: ANN401 - a type, and a value of it
    """Return what TOML has as a value of a field's type. Raises TypeError or ValueError, whose text is a rule."""
    if get_origin(kind) is tuple:
        if not isinstance(content, list) or not all(isinstance(each, str) for each in content):
            raise TypeError("must be a list of texts")
        return tuple(content)
    if get_origin(kind) is Mapping:
        if not isinstance(content, dict) or not all(isinstance(each, str) for each in content.values()):
            raise TypeError("must be a table of texts")
        of_key, of_value = get_args(kind)
        return {_convert_key(of_key, name): _convert(of_value, each) for name, each in content.items()}
    if not isinstance(content, str):
        raise TypeError("must be a text")
    return Reason(_one_of(content, set(Reason))) if kind is Reason else content


def _convert_key(kind: type, name: str) -> str | int:
    if kind is str:
        return name
    if not name.isascii() or not name.isdecimal() or not 0 < int(name) < 256:
        raise ValueError("must have exit codes as keys, from 1 to 255")
    return int(name)


def _one_of(content: str, choices: set[str]) -> str:
    if content not in choices:
        raise ValueError(f"must be one of {', '.join(sorted(choices))}, and not {content!r}")
    return content


_TYPES: Final = {name: kind for name, kind in get_type_hints(Preset).items() if name != "name"}
_REQUIRED: Final = {
    each.name
    for each in fields(Preset)
    if each.default is MISSING and each.default_factory is MISSING and each.name != "name"
}
