"""No traceback reaches a person: where output, locale or directory are broken, with no cell. With one: tests/e2e."""

import os
from pathlib import Path

from tests.kit.borders import CONDITIONS, complaints, endings

LINES = [
    ["--version"],
    ["ps"],
    ["run", "--repo", ".", "--command", "true", "R\u00e9parer"],
    ["logs", "-f", "x"],
    ["down", "--json"],
]


def test_what_cannot_be_written_ends_a_command_with_one_sentence(tmp_path: Path) -> None:
    found = endings(LINES, {"PATH": os.environ["PATH"], "BOATYARD_HOME": str(tmp_path / "home")})

    assert len(found) == len(LINES) * len(CONDITIONS)
    assert not complaints(found)
