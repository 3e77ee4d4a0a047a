"""No traceback reaches a person: every command, of a cell, where its output, its locale or its directory is broken."""

import pytest

from services.cli.main import COMMANDS
from tests.e2e.conftest import Remote
from tests.kit.borders import CONDITIONS, complaints, endings
from tests.kit.cell import Cell

NOT_RUN = {"up", "down", "coordinator", "login", "keys", "pause", "resume", "attach"}
"""Those that would change the cell for others, or need one or an agent of their own: their help is written."""

AS_JSON = {"show", "logs", "ps", "run", "token", "cancel"}
"""Those that are run with --json too: the others write it in the same ways."""


def lines_of(name: str, job: str) -> list[list[str]]:
    """The command lines of one command: those that write the most, as text and as JSON."""
    arguments = {
        "run": [["--command", "echo caf\u00e9; echo e >&2", "--label", "a=\u00fc", "R\u00e9parer \u00fc"]],
        "cells": [[]],
        "doctor": [[]],
        "kinds": [[]],
        "ps": [[], ["-n", "2"]],
        "status": [[]],
        "checkpoints": [[]],
        "workspaces": [[]],
        "snapshots": [[]],
        "audit": [["-n", "3"]],
        "logs": [[job], ["-f", job]],
        "tell": [[job, "caf\u00e9"]],
        "allow": [[job, "p"]],
        "deny": [[job, "p"]],
        "request-changes": [[job, "\u00fc"]],
        "reject": [[job, "--reason", "\u00fc"]],
        "secret": [["list", "default"]],
    }
    groups = {"project", "repository", "template", "worker", "item", "hook", "token"}
    rows = [["list"]] if name in groups else arguments.get(name, [[job]])
    return [[name, *row] for row in [*rows, *([*row, "--json"] for row in rows if name in AS_JSON)]]


@pytest.mark.slow
def test_what_cannot_be_written_ends_every_command_with_one_sentence(cell: Cell, remote: Remote) -> None:
    job = cell.run(remote.path, "echo caf\u00e9 | tee new", "--verify", "true")["job_id"]
    cell.boatyard("project", "create", "borders", code=None)
    lines = [line for name in COMMANDS for line in ([[name, "--help"]] if name in NOT_RUN else lines_of(name, job))]

    found = endings(lines, cell.environment)

    assert len(found) == len(lines) * len(CONDITIONS)
    assert not complaints(found)
