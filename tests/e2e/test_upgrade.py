"""An upgrade costs no job: services of the version before are replaced by the present ones while jobs are at work."""

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.e2e.conftest import Remote
from tests.e2e.test_coordinator import Coordinator
from tests.kit import containers, processes
from tests.kit.cell import Cell, eventually
from tests.kit.earlier_code import earlier_code, run_with, version_of
from tests.kit.mounts import unmount_below
from tests.kit.replay import replaying
from tests.kit.upgrade_jobs import Case, cases, coordinators_cases, printed, scripts, shown

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SERVICES = ("gateway", "workspace", "git", "execution")
LEASE_SECONDS = 60
PATIENCE_SECONDS = 180
Jobs = dict[str, Case]


def stop(cell: Cell) -> None:
    """End the services in order, as `systemctl restart` does; agents go on."""
    assert cell.process
    cell.process.send_signal(signal.SIGTERM)
    assert cell.process.wait(timeout=60) == 0


@contextmanager
def ended_after(cell: Cell) -> Iterator[None]:
    """End a cell after the block, and check that nothing of it is left."""
    try:
        yield
    finally:
        cell.down()
        unmount_below(cell.home)
    assert not processes.with_environment({"BOATYARD_HOME": str(cell.home)})


def submitted(cell: Cell, given: Iterable[Case]) -> Jobs:
    """Submit jobs; return them by id, when each is in the state in which the upgrade is to find it."""
    jobs = {}
    for case in given:
        for _ in range(case.copies):
            (line,) = cell.lines("run", "--detach", *case.arguments, case.prompt)
            jobs[line["job_id"]] = case
    for job_id, case in jobs.items():
        eventually(lambda job_id=job_id, case=case: case.found(cell, job_id), case.name, PATIENCE_SECONDS)
    return jobs


def upgrade(cell: Cell, end: Callable[[Cell], None]) -> None:
    """Replace the services of a cell by those of the present code."""
    end(cell)
    assert cell.process
    assert cell.process.stdout
    cell.process.stdout.close()
    run_with(cell, None)
    cell.up()


def history(cell: Cell, job_ids: Iterable[str]) -> list[dict]:
    """Return all that the command line says of jobs that have ended."""
    commands = ("show", "logs", "diff")
    return [line for job_id in job_ids for command in commands for line in cell.lines(command, job_id)]


def check_ended(cell: Cell, remotes: Iterable[Remote], job_id: str, case: Case) -> None:
    """Check that a job has ended as it must, with every line once."""
    job = cell.result(job_id, PATIENCE_SECONDS)
    assert job["state"] == case.state, (case.name, job)
    assert case.attempts in (None, len(job["execution_ids"])), (case.name, "was begun anew", job)
    assert job["pushed"] == (case.state == "SUCCEEDED" and "--repo" in case.arguments), case.name
    if job["pushed"]:
        assert any(f"boatyard/{job_id}" in each.branches() for each in remotes), case.name
    lines = printed(cell, job["execution_id"])
    if case.counts:
        assert lines == [str(number) for number in range(1, len(lines) + 1)], case.name
        assert lines, case.name


@contextmanager
def container_image() -> Iterator[str]:
    """Make an image for agents in containers, if there is a container engine; else the image is ""."""
    engines = containers.available_engines()
    if not engines:
        yield ""
        return
    with containers.image(next(iter(engines.values())), "localhost/boatyard-upgrade:latest") as image:
        yield image


@contextmanager
def earlier_cell(scratch: Path, code: Path, gates: Path, model_url: str, image: str) -> Iterator[Cell]:
    """Run a cell with the code of the version before."""
    cell = Cell(scratch / "home")
    cell.environment |= {
        "BOATYARD_GATEWAY_MAX_JOBS": "32",
        "BOATYARD_GATEWAY_LEASE_SECONDS": str(LEASE_SECONDS),
        "BOATYARD_EXECUTION_READ_ONLY_PATHS": str(gates),
        "ANTHROPIC_API_KEY": "sk-ant-upgrade",
        "ANTHROPIC_BASE_URL": model_url,
        **({"BOATYARD_EXECUTION_CONTAINER_IMAGE": image} if image else {}),
    }
    run_with(cell, code)
    cell.up()
    with ended_after(cell):
        yield cell


@contextmanager
def earlier_coordinator(cell: Cell, scratch: Path, code: Path, gates: Path) -> Iterator[Coordinator]:
    """Run a coordinator with the code of the version before."""
    (made,) = cell.lines("token", "create", "--role", "coordinator")
    directory = scratch / "machine"
    directory.mkdir()
    coordinator = Coordinator(directory / "home", cell.address("gateway"), made["secret"])
    coordinator.arguments += ("--kind", "data-processing")
    coordinator.environment["BOATYARD_EXECUTION_READ_ONLY_PATHS"] = str(gates)
    run_with(coordinator, code)
    coordinator.up()
    with ended_after(coordinator):
        yield coordinator


def submitted_to_coordinator(cell: Cell, coordinator: Coordinator, given: Iterable[Case]) -> Jobs:
    """Submit jobs while the cell itself takes none."""
    (this_cell,) = [one["cell_id"] for one in cell.lines("cells") if one["cell_id"] != coordinator.cell_id]
    cell.boatyard("pause", this_cell)
    jobs = submitted(cell, given)
    cell.boatyard("resume", this_cell)
    return jobs


def test_an_upgrade_costs_no_job(scratch: Path, remote: Remote) -> None:
    upgrade_under_jobs(scratch, remote, stop)


def upgrade_under_jobs(scratch: Path, remote: Remote, end: Callable[[Cell], None]) -> None:
    """Upgrade a cell and a coordinator while jobs of all kinds are at work, and check how each ends."""
    code = earlier_code(scratch / "earlier")
    gates, other = scratch / "gates", scratch / "other"
    gates.mkdir()
    other.mkdir()
    gate, slow = gates / "open", Remote(other)
    with (
        container_image() as image,
        replaying(scratch, *scripts(scratch, gate)) as model,
        earlier_cell(scratch, code, gates, model.url, image) as cell,
        earlier_coordinator(cell, scratch, code, gates) as coordinator,
    ):
        past = past_jobs(cell, remote)
        remote_jobs = submitted_to_coordinator(cell, coordinator, coordinators_cases(remote, gate))
        cell.boatyard("repository", "create", "--url", slow.path, "--max-running", "1")
        jobs = remote_jobs | submitted(cell, cases(remote, slow, gate, in_container=bool(image)))
        assert len(jobs) >= 20
        assert versions(cell) == {version_of(code)}
        before = history(cell, past)

        upgrade(cell, end)
        check_the_past(cell, before, past)
        check_told_apart(coordinator, version_of(code))
        upgrade(coordinator, end)
        eventually(lambda: versions(cell) == {version("boatyard")}, "both are upgraded")
        gate.touch()
        for job_id, case in jobs.items():
            case.answer(cell, job_id)
        for job_id, case in jobs.items():
            check_ended(cell, [remote, slow], job_id, case)
        assert {shown(cell, job_id)["cell_id"] for job_id in remote_jobs} == {coordinator.cell_id}


def versions(cell: Cell) -> set[str]:
    """Return the versions of the cells and coordinators that the gateway hears of."""
    return {one["version"] for one in cell.lines("cells")}


def check_told_apart(coordinator: Coordinator, earlier: str) -> None:
    """Check that a coordinator which is not upgraded yet, and waits for that, is told two versions."""
    log = coordinator.home / "logs" / "coordinator.log"
    told = f"(version {earlier})", f"(version {version('boatyard')}): upgrade the coordinator"
    eventually(lambda: all(words in log.read_text() for words in told), "the coordinator's log says both versions")
    assert earlier != version("boatyard")


def past_jobs(cell: Cell, remote: Remote) -> list[str]:
    """Run a job that succeeds and one that fails; return their ids."""
    good = cell.run(remote.path, "echo hello; echo new > new.txt; rm file1.txt", "--verify", "test -f new.txt")
    bad = cell.run(remote.path, "echo left >> left.txt; echo oh; exit 3", code=1)
    return [good["job_id"], bad["job_id"]]


def known_of(old: object, new: object) -> object:
    """Return what is told now, without what was not told before: newer versions may add keys."""
    match old, new:
        case dict(), dict():
            return {key: known_of(old[key], value) for key, value in new.items() if key in old}
        case list(), list() if len(old) == len(new):
            return [known_of(*pair) for pair in zip(old, new, strict=True)]
        case _:
            return new


def check_the_past(cell: Cell, before: list[dict], past: list[str]) -> None:
    """Check that jobs of the version before are shown as before, and can be tried again."""
    for old, new in zip(before, history(cell, past), strict=True):
        assert known_of(old, new) == old
    (again,) = cell.lines("retry", past[-1], "--from-snapshot")
    ended = cell.result(again["job_id"], PATIENCE_SECONDS)
    assert (ended["state"], ended["reason"]) == ("FAILED", "AGENT_FAILED")
    assert b"+left" in cell.boatyard("diff", ended["snapshot_id"])
