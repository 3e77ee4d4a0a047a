"""Another user of the machine, who may do what any account may: of a cell and its agents nothing is read or held up."""

import contextlib
import json
import os
import re
import subprocess
import uuid
from pathlib import Path

import pytest

from tests.e2e.conftest import Remote, let_others_in
from tests.kit import processes
from tests.kit.cell import Cell, eventually, running_cell
from tests.kit.uids import AS_SOMEBODY

ATTEMPTS = """
import ctypes, glob, json, os, resource, signal, socket, sys
world = json.load(sys.stdin)
libc = ctypes.CDLL(None, use_errno=True)

def call(name, *arguments):
    answer = getattr(libc, name)(*arguments)
    if answer == -1:
        raise OSError(ctypes.get_errno(), name)
    return answer

def tried(what, attempt, *arguments):
    try:
        answer = attempt(*arguments)
    except OSError:
        return
    print("GAINED", what, answer, flush=True)

def read(path):
    return open(path, "rb").read(1 << 16) or None

def connect(path):
    with socket.socket(socket.AF_UNIX) as one:
        return one.connect(path)

os.listdir(world["reached"])
for directory in world["directories"]:
    tried("a directory", os.listdir, directory)
    tried("an entry", os.mkdir, directory + "/made")
for path in world["files"]:
    tried(path, lambda: os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK)))
    tried(path, lambda: os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK)))
for path in world["sockets"]:
    tried(path, connect, path)
for pid in world["pids"]:
    for name in ("environ", "mem", "maps", "auxv", "stack", "syscall", "io", "clear_refs", "pagemap"):
        tried((pid, name), read, f"/proc/{pid}/{name}")
    for name in ("cwd", "root", "exe"):
        tried((pid, name), os.readlink, f"/proc/{pid}/{name}")
    for name in ("fd", "map_files", "root", "cwd"):
        tried((pid, name), os.listdir, f"/proc/{pid}/{name}")
    for path in glob.glob(f"/proc/{pid}/ns/*"):
        tried((pid, path), os.open, path, os.O_RDONLY)
    for name in ("oom_score_adj", "coredump_filter", "comm"):
        tried((pid, name), os.open, f"/proc/{pid}/{name}", os.O_WRONLY)
    tried((pid, "ptrace"), call, "ptrace", 0x4206, pid, None, None)
    for number in (0, signal.SIGSTOP, signal.SIGKILL):
        tried((pid, "signal"), os.kill, pid, number)
    tried((pid, "limits"), resource.prlimit, pid, resource.RLIMIT_NOFILE, (3, 3))
    tried((pid, "priority"), os.setpriority, os.PRIO_PROCESS, pid, 19)
    tried((pid, "processors"), os.sched_setaffinity, pid, {0})
for pid in glob.glob("/proc/[0-9]*/cmdline"):
    try:
        line = read(pid) or b""
    except OSError:
        continue
    for secret in world["secrets"]:
        if secret[::-1].encode() in line:
            print("GAINED", pid, secret)
print("TRIED")
"""


def everything_of(cell: Cell) -> dict[str, list]:
    """Return what a cell has on the machine: its processes, and the files, directories and sockets that they hold."""
    assert cell.process
    pids = processes.with_descendants(
        [cell.process.pid, *processes.with_environment({"BOATYARD_HOME": str(cell.home)})]
    )
    held = {target for pid in pids for target in _targets(pid)}
    inodes = {match[1] for target in held if (match := re.fullmatch(r"socket:\[(\d+)\]", target))}
    paths = [Path(target) for target in held if target.startswith(str(cell.home))]
    return {
        "pids": sorted(pids),
        "files": [str(path) for path in paths if path.is_file()],
        "directories": [str(cell.home), *(str(path) for path in paths if path.is_dir())],
        "sockets": [*map(str, (cell.home / "run").glob("*.sock")), *_names("/proc/net/unix", inodes)],
        "ports": [int(name.rpartition(":")[2], 16) for name in _listening(inodes)],
    }


def _targets(pid: int) -> list[str]:
    targets = []
    with contextlib.suppress(OSError):  # it may have ended
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                targets.append(str(entry.readlink()))
    return targets


def _names(table: str, inodes: set[str]) -> list[str]:
    """Return the names of sockets without a path."""
    rows = [line.split() for line in Path(table).read_text().splitlines()[1:]]
    return ["\0" + row[7][1:] for row in rows if len(row) > 7 and row[6] in inodes and row[7].startswith("@")]


def _listening(inodes: set[str]) -> list[str]:
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    return [row[1] for row in rows if row[3] == "0A" and row[9] in inodes]


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_of_the_machine_reads_nothing_and_holds_nothing_up(scratch: Path, remote: Remote) -> None:
    let_others_in(scratch)
    secret = uuid.uuid4().hex
    (scratch / "key").write_text(secret)
    with running_cell(scratch) as cell:
        job = cell.submit(remote.path, "sleep 600", "--secret", f"A_KEY=@{scratch / 'key'}")
        (scratch / "key").unlink()
        eventually(lambda: processes.with_environment({"BOATYARD_JOB_ID": job["job_id"]}), "the agent runs")
        world = everything_of(cell)
        assert sorted(world.pop("ports")) == [cell.base, cell.base + 20], "the gateway's two ports, and no other"
        tokens = [(cell.home / name).read_text().strip() for name in ("token", "cell-token")]
        world["reached"] = str(scratch)
        world["directories"].append("/var/lib/boatyard/uids")
        world["secrets"] = [each[::-1] for each in (secret, *tokens)]  # not in our own command line either
        tried = subprocess.run(
            ["/usr/bin/python3", "-c", ATTEMPTS],
            **AS_SOMEBODY,
            input=json.dumps(world),
            cwd="/",
            capture_output=True,
            text=True,
            check=True,
        )
        assert tried.stdout == "TRIED\n"
        assert len(world["pids"]) >= 7, "the cell, its services, a runner and an agent in its sandbox"
        (still,) = cell.lines("show", job["job_id"])
        assert still["state"] == "RUNNING"
        cell.boatyard("cancel", job["job_id"])
        assert cell.result(job["job_id"])["state"] == "CANCELLED"
        assert cell.run(remote.path, "touch new.txt")["state"] == "SUCCEEDED"
