"""Another user of the machine lays traps: in directories of everybody's, in place of a home, in repositories."""

import contextlib
import os
import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Remote, git, let_others_in
from tests.kit.cell import BOATYARD, NOT_KEPT_APART, Cell, running_cell
from tests.kit.uids import AS_SOMEBODY, SOMEBODY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
]

RACE = """
import contextlib, os, sys, threading
place, ended, seen = sys.argv[1], threading.Event(), set()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set())).start()
made = os.path.join(place, "made")

def tried(what, attempt, *arguments):
    try:
        attempt(*arguments)
    except OSError:
        return
    print("GAINED", what, arguments, flush=True)

print("READY", flush=True)
while not ended.wait(0.001):  # others have work to do meanwhile
    for entry in os.scandir(place):
        try:
            if entry.is_symlink() or entry.stat(follow_symlinks=False).st_uid == os.getuid():
                continue
        except OSError:  # it is gone already
            continue
        seen.add(entry.name)
        tried("moved", os.rename, entry.path, made)
        tried("removed", os.unlink, entry.path)
        tried("removed", os.rmdir, entry.path)
        tried("listed", os.listdir, entry.path)
        tried("an entry", os.mkdir, entry.path + "/made")
        tried("opened", os.open, entry.path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        tried("opened", os.open, entry.path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        with contextlib.suppress(OSError):
            os.symlink("/etc/shadow", entry.path)  # when it is gone: who takes the same name again follows it
print("SEEN", len(seen), flush=True)
"""
SWAP = """
import itertools, os, sys, threading
ours, private, ended = sys.argv[1], sys.argv[2], threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set())).start()
os.symlink(private, "link")
print("READY", flush=True)
for swaps in itertools.count():
    if ended.is_set():
        break
    for one, other in ((ours, "aside"), ("link", ours), (ours, "link"), ("aside", ours)):
        os.rename(one, other)
        ended.wait(0.001)
print("SWAPS", swaps, flush=True)
"""


@contextlib.contextmanager
def somebody(program: str, *arguments: object, cwd: Path = Path("/")) -> Iterator[subprocess.Popen[str]]:
    """Run a program as another user of the machine, from its first line on until its standard input is closed."""
    with subprocess.Popen(
        ["/usr/bin/python3", "-c", program, *map(str, arguments)],
        **AS_SOMEBODY,
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "READY\n"
        yield process


def said(process: subprocess.Popen[str]) -> str:
    """End a program that goes on until its standard input is closed, and return what it wrote."""
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return output


@pytest.fixture
def everybodys(scratch: Path) -> Path:
    """A directory like /tmp."""
    let_others_in(scratch)
    (place := scratch / "everybodys").mkdir()
    place.chmod(0o1777)
    return place


def test_nothing_in_a_directory_of_everybodys_is_taken_or_led_elsewhere(
    scratch: Path, everybodys: Path, remote: Remote
) -> None:
    with (
        somebody(RACE, everybodys) as race,
        running_cell(scratch, TMPDIR=str(everybodys), **NOT_KEPT_APART) as cell,
    ):
        cell.environment["TMPDIR"] = str(everybodys)
        cell.boatyard("doctor", code=None)
        for tier in ("bubblewrap", "none"):
            assert cell.run(remote.path, "mktemp; mktemp -d; git status", "--sandbox", tier)["state"] == "SUCCEEDED"
        (seen,) = said(race).splitlines()
    assert seen.startswith("SEEN ")
    assert seen != "SEEN 0"


@pytest.mark.parametrize("way", ["a directory", "a link", "a link to ours"])
def test_a_home_that_another_user_has_made_before_is_not_used(scratch: Path, everybodys: Path, way: str) -> None:
    home, theirs = everybodys / "home", everybodys / "theirs"
    (scratch / "ours").mkdir()
    script = {
        "a directory": f"mkdir -m 777 {home}",
        "a link": f"mkdir -m 777 {theirs}; ln -s {theirs} {home}",
        "a link to ours": f"ln -s {scratch}/ours {home}",
    }
    subprocess.run(["/bin/sh", "-c", script[way]], **AS_SOMEBODY, check=True)
    cell = Cell(home)
    refused = subprocess.run(
        [BOATYARD, "up", "--port-base", str(cell.base)], env=cell.environment, capture_output=True, check=False
    )
    assert refused.returncode == 1
    assert re.search(rf"{home} belongs to user {SOMEBODY}.*BOATYARD_HOME", refused.stderr.decode())
    assert not [*(scratch / "ours").iterdir()]
    assert not theirs.exists() or not [*theirs.iterdir()]


def test_a_repository_of_another_user_leads_to_nothing_and_runs_nothing(scratch: Path, remote: Remote) -> None:
    """Where that user's repositories are used by a setting, and while the user swaps one for a link."""
    let_others_in(scratch)
    (place := scratch / "theirs").mkdir()
    secret, canary = uuid.uuid4().hex, scratch / "canary"
    (private := scratch / "private").mkdir()
    Remote(private)
    (private / "work" / "secret.txt").write_text(secret)
    git(private / "work", "add", ".")
    git(private / "work", "commit", "--quiet", "--message", secret)
    git(private / "work", "push", "--quiet", "../remote.git", "HEAD:main")
    git(place, "clone", "--quiet", "--bare", str(remote.path), "repo.git")
    for name in ("pre-receive", "post-receive", "update", "post-update"):
        (hook := place / "repo.git" / "hooks" / name).write_text(f"#!/bin/sh\ntouch {canary}\n")
        hook.chmod(0o755)
    for path in (place, *place.rglob("*")):
        os.chown(path, SOMEBODY, SOMEBODY, follow_symlinks=False)
    agent = "cat counter.txt secret.txt; git log --format=%s"
    with (
        running_cell(scratch, BOATYARD_GIT_OTHERS_FILE_ROOTS=str(place)) as cell,
        somebody(SWAP, "repo.git", private / "remote.git", cwd=place) as swapping,
    ):
        (repository,) = cell.lines("repository", "create", "--url", place / "repo.git")
        options = ("--repository", repository["repository_id"], "--command", agent, "--max-attempts", 1, "--detach")
        jobs = [cell.lines("run", *options, "Do it.")[0]["job_id"] for _ in range(3)]
        ends = [cell.result(job_id) for job_id in jobs]
        assert re.fullmatch(r"SWAPS [1-9]\d*\n", said(swapping))
        assert cell.run(place / "repo.git", agent, "--no-push")["state"] == "SUCCEEDED"
        for path in cell.home.rglob("*"):
            assert not path.is_file() or path.is_symlink() or secret.encode() not in path.read_bytes(), path
    assert not canary.exists()
    assert git(private / "remote.git", "for-each-ref", "--format=%(refname)") == "refs/heads/main"
    assert {end["state"] for end in ends} <= {"SUCCEEDED", "FAILED"}
