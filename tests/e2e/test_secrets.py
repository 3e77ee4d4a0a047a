"""Secrets as people use them: by the command line, on two cells that share a database, while its key is replaced."""

import base64
import secrets
import subprocess
import time
import uuid
from pathlib import Path

import pytest

from tests.e2e.conftest import Remote
from tests.e2e.test_coordinator import coordinating
from tests.kit import processes
from tests.kit.cell import BOATYARD, eventually, running_cell
from tests.kit.cells import running_cells
from tests.kit.repos import Repo


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_secrets_of_jobs_on_two_cells_while_the_key_is_replaced(tmp_path: Path, postgres_url: str) -> None:
    remote = Repo.sample(tmp_path / "source").bare_clone(tmp_path / "remote.git")
    value, own = secrets.token_hex(12), secrets.token_hex(12)
    file = tmp_path / "value"
    file.write_text(f"{value}\n")
    with running_cells(tmp_path, 2, postgres_url) as cells:
        one, two = cells
        one.boatyard("secret", "set", f"API=@{file}")
        assert [each["name"] for each in two.lines("secret", "list")] == ["API"]
        (tmp_path / "own").write_text(own)
        refused = subprocess.run(
            [BOATYARD, "run", "--secret", f"OWN={own}", "x"], env=one.environment, capture_output=True, check=False
        )
        assert refused.returncode == 2
        assert b"other users see the arguments" in refused.stderr

        line = 'echo "api $API, own $OWN"; test ${#API} = 24 && test ${#OWN} = 24; sleep 0.2'
        jobs = [
            cell.submit(remote.path, line, "--secret", f"OWN=@{tmp_path}/own", "--no-push")
            for cell in (one, two, one, two)
        ]
        (before,) = one.lines("keys")
        rotating = one.start("keys", "rotate")
        jobs += [two.submit(remote.path, line, "--secret", f"OWN=@{tmp_path}/own", "--no-push") for _ in range(4)]
        new, _ = rotating.communicate(timeout=90)
        assert rotating.returncode == 0
        (after,) = two.lines("keys")
        assert after["key_id"] == new.decode().strip() != before["key_id"]

        for job in jobs:
            deadline = time.monotonic() + 90
            while (shown := two.lines("show", job["job_id"])[0])["state"] not in {"SUCCEEDED", "FAILED"}:
                assert time.monotonic() < deadline, shown
                time.sleep(0.2)
            assert shown["state"] == "SUCCEEDED", shown
            assert value not in str(shown)
            assert one.output(job["execution_id"]) == b"api [redacted:API], own [redacted:OWN]\n"
        for path in tmp_path.rglob("*.log"):
            content = path.read_bytes()
            assert value.encode() not in content, path
            assert own.encode() not in content, path

        wrong = tmp_path / "wrong"
        wrong.mkdir()
        third = type(one)(wrong / "home", postgres_url)
        third.arguments += ("--keys-file", str(tmp_path / "keys"))  # the one from before the rotation
        third.begin()
        assert third.process is not None
        third.process.communicate(timeout=60)
        assert third.process.returncode != 0
        logs = b"".join(path.read_bytes() for path in [wrong / "up.log", *wrong.rglob("gateway.log")])
        assert b"--keys-file FILE (BOATYARD_GATEWAY_KEYS_FILE)" in logs


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_secrets_reach_an_agent_on_a_coordinator_and_nobody_else(scratch: Path, remote: Remote) -> None:
    """Also in a round that begins when the key that seals them has been replaced."""
    value, own, marker = secrets.token_hex(12), secrets.token_hex(12), uuid.uuid4().hex
    for name, content in (("value", value), ("own", own)):
        (scratch / name).write_text(content)
    told = 'set -e; echo "api $API, own $OWN"; test ${#API}${#OWN} = 2424; cat "$BOATYARD_SECRETS_DIR"/*; env >&2'
    ask = 'mkdir -p .boatyard; test "$BOATYARD_ROUND" -gt 1 || echo "Go on?" >"$BOATYARD_ASK_FILE"; echo done >>new.txt'
    shown = b"api [redacted:API], own [redacted:OWN]\n[redacted:API]\n[redacted:OWN]\n"
    with (
        running_cell(scratch, BOATYARD_GATEWAY_MAX_JOBS="0") as gateway,
        coordinating(gateway, gateway.address("gateway")) as coordinator,
    ):
        gateway.boatyard("secret", "set", f"API=@{scratch}/value")
        given = ("--secret", f"OWN=@{scratch}/own")
        asking = gateway.submit(remote.path, f"{told}; {ask}", *given, "--agent-may-ask")["job_id"]
        running = gateway.submit(remote.path, f"{told}; echo {marker}; sleep 600", *given)["job_id"]
        for name in ("value", "own"):
            (scratch / name).unlink()
        eventually(lambda: coordinator.at_work(marker), "an agent is at work")
        eventually(lambda: gateway.lines("checkpoints", "--job", asking), "the other one asks")
        (before,) = gateway.lines("keys")
        gateway.boatyard("keys", "rotate")
        assert gateway.lines("keys")[0]["key_id"] != before["key_id"]
        arguments = processes.command_lines()
        assert gateway.lines("show", running)[0]["state"] == "RUNNING"
        gateway.boatyard("approve", asking, "--comment", "Go on.")
        ended = gateway.result(asking)
        assert ended["state"] == "SUCCEEDED", ended
        assert (ended["cell_id"], len(ended["execution_ids"])) == (coordinator.cell_id, 2)
        assert [gateway.output(execution_id) for execution_id in ended["execution_ids"]] == [shown, shown]
        gateway.boatyard("cancel", running)
        cancelled = gateway.result(running)

        said = [*arguments, str(ended).encode(), str(cancelled).encode(), gateway.boatyard("audit", "--json")]
        said += [gateway.boatyard("logs", each, "--json") for each in ended["execution_ids"]]
        homes = [gateway.home.parent, coordinator.home.parent]
        files = [path for home in homes for path in home.rglob("*") if path.is_file() and not path.is_symlink()]
        for secret in (value.encode(), own.encode()):
            for form in (secret, secret[::-1], base64.b64encode(secret)):
                assert not [text for text in said if form in text]
                assert not [path for path in files if form in path.read_bytes()]
