"""Secrets as people use them: by the command line, on two cells that share a database, while its key is replaced."""

import secrets
import subprocess
import time
from pathlib import Path

import pytest

from tests.kit.cell import BOATYARD
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
