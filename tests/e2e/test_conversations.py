"""An agent that speaks the Agent Client Protocol, from the command line to the branch on the remote."""

import json
from pathlib import Path

import pytest

from tests.integration.execution.conversations import PEER, PROGRAM
from tests.kit.cell import Cell
from tests.kit.repos import Repo

TURN = [
    {"run": "echo fixed > file.txt"},
    {"update": {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "It is fixed."}}},
]


@pytest.mark.slow
def test_its_fix_is_verified_and_pushed(cell: Cell, tmp_path: Path) -> None:
    repo = Repo.sample(tmp_path / "repo")
    ignored = "heard\noutcomes\n"
    repo.commit("its script", {"peer.py": PROGRAM, "script.json": json.dumps({"turns": [TURN]}), ".gitignore": ignored})
    result = cell.run(repo.path, PEER, "--prompt-delivery", "acp", "--verify", "grep -q fixed file.txt")
    assert (result["state"], result["files_changed"]) == ("SUCCEEDED", ["file.txt"]), result
    assert repo.git("show", f"{result['branch']}:file.txt") == "fixed"
    assert b"It is fixed." in cell.boatyard("logs", result["execution_id"])
