"""Presets are data that is checked when it is read, and programs are found where a sandbox sees them."""

import subprocess
from importlib import import_module
from pathlib import Path

import pytest

from services.execution.model import Reason
from services.execution.presets.preset import ACP, READERS, PresetError, read_preset
from services.execution.presets.presets import Presets
from services.execution.presets.tools import ToolPaths

GOOD = {
    "title": '"Mine"',
    "licence": '"MIT"',
    "install": '"make it"',
    "program": '"mine"',
    "line": '"exec \\"$BOATYARD_AGENT_PROGRAM\\""',
}
BAD = {
    "unknown key": ({"titel": '"x"'}, "titel is no key of a preset"),
    "no TOML": ({"title": "x"}, "is no preset"),
    "a number": ({"title": "7"}, "title must be a text"),
    "empty": ({"install": '" "'}, "install must not be empty"),
    "a path": ({"program": '"/bin/mine"'}, "program must be a program's name"),
    "an option": ({"program": '"-x"'}, "program must be a program's name"),
    "starts something else": ({"line": '"exec mine"'}, "line must start $BOATYARD_AGENT_PROGRAM"),
    "no shell line": ({"line": '"if $BOATYARD_AGENT_PROGRAM"'}, "line is no line for /bin/sh"),
    "unknown reader": ({"reader": '"mine"'}, "reader must be one of claude"),
    "a mode for lines": ({"mode": '"free"'}, "mode is for reader acp alone"),
    "unknown wire": ({"wires": '["smoke"]'}, "wires.smoke must be one of messages"),
    "no list": ({"leave_out": '"x"'}, "leave_out must be a list of texts"),
    "no texts": ({"version": "[1]"}, "version must be a list of texts"),
    "no table": ({"environment": "[]"}, "environment must be a table of texts"),
    "no variable": ({"environment": '{"A-B" = "x"}'}, "environment.A-B must be a variable's name"),
    "NUL in a variable": ({"environment": '{A = "\\u0000"}'}, "environment.A must be a variable's name"),
    "outside of HOME": ({"home": '{"../x" = ""}'}, 'home."../x" must be a path below HOME'),
    "absolute": ({"home": '{"/x" = ""}'}, 'home."/x" must be a path below HOME'),
    "no exit code": ({"exit_codes": '{"0" = "AGENT_FAILED"}'}, "exit_codes must have exit codes as keys"),
    "no reason": ({"exit_codes": '{"1" = "SULKING"}'}, "exit_codes must be one of AGENT_FAILED"),
    "no expression": ({"done": '"("'}, "done is no regular expression"),
    "for another reader": ({"reader": '"claude"', "done": '"x"'}, "done is for reader text alone"),
}
NOWHERE = ToolPaths()


def written(path: Path, **keys: str) -> Path:
    path.write_text("".join(f"{key} = {value}\n" for key, value in (GOOD | keys).items()))
    return path


def test_every_preset_of_ours_can_be_read_and_has_a_reader() -> None:
    ours = Presets.load(None, NOWHERE).by_name
    spoken_to = {"claude-acp", "codex-acp", "gemini-acp", "opencode-acp"}
    assert set(ours) == {"aider", "claude", "codex", "gemini", "mini-swe-agent", "opencode"} | spoken_to
    assert {name for name, preset in ours.items() if preset.reader == ACP} == spoken_to
    for preset in ours.values():
        subprocess.run(["/bin/sh", "-n", "-c", preset.line], check=True)
    for reader in set(READERS) - {ACP}:
        import_module(f"services.execution.engines.command.readers.{reader}")


@pytest.mark.parametrize("key", GOOD)
def test_what_is_missing_is_named_with_its_file(tmp_path: Path, key: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("".join(f"{name} = {value}\n" for name, value in GOOD.items() if name != key))
    with pytest.raises(PresetError, match=rf"mine\.toml: {key} is missing"):
        read_preset(path)


@pytest.mark.parametrize(("keys", "complaint"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_named_with_its_file(tmp_path: Path, keys: dict[str, str], complaint: str) -> None:
    with pytest.raises(PresetError) as error:
        read_preset(written(tmp_path / "mine.toml", **keys))
    assert complaint in str(error.value)
    assert "mine.toml" in str(error.value)


def test_an_operators_presets_stand_beside_ours_and_in_place_of_them(tmp_path: Path) -> None:
    written(tmp_path / "claude.toml", exit_codes='{53 = "BUDGET_EXCEEDED"}')
    written(tmp_path / "mine.toml")
    presets = Presets.load(tmp_path, NOWHERE).by_name
    assert presets["claude"].title == presets["mine"].title == "Mine"
    assert presets["claude"].exit_codes == {53: Reason.BUDGET_EXCEEDED}
    assert presets.keys() - {"mine"} == Presets.load(None, NOWHERE).by_name.keys()
    with pytest.raises(PresetError, match="gone is no directory"):
        Presets.load(tmp_path / "gone", NOWHERE)


@pytest.mark.parametrize("below", ["mine", "bin/mine", "node_modules/.bin/mine"])
@pytest.mark.parametrize("which", ["for_agents", "for_all"])
def test_programs_are_found_on_the_tool_paths(tmp_path: Path, below: str, which: str) -> None:
    program = tmp_path / below
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text("#!/bin/sh\n")
    tools = ToolPaths(**{which: (tmp_path,)})
    assert tools.find("mine") is None, "it cannot be executed"
    program.chmod(0o755)
    assert tools.find("mine") == program
    assert NOWHERE.find("mine") is None


def test_a_program_that_no_sandbox_would_see_is_not_found_and_its_place_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tmp_path / "elsewhere" / "mine"
    real.parent.mkdir()
    real.write_text("#!/bin/sh\n")
    real.chmod(0o755)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "mine").symlink_to(real)
    assert ToolPaths((tools,)).find("mine") is None
    assert f"{real}, which sandboxes do not see" in ToolPaths((tools,)).complaint("mine")
    assert ToolPaths((tools, real.parent)).find("mine") == tools / "mine"
    monkeypatch.setenv("PATH", str(real.parent))
    assert str(real) in NOWHERE.complaint("mine")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "there is no program 'mine'" in NOWHERE.complaint("mine")


def test_what_is_missing_says_what_to_install_and_what_there_is(tmp_path: Path) -> None:
    written(tmp_path / "mine.toml")
    presets = Presets.load(tmp_path, NOWHERE)
    assert "To install it: make it" in presets.missing("mine")
    assert presets.missing("yours").startswith("this machine has no agent 'yours'; it has ")
    assert "mine" in presets.missing("yours")
