"""A machine without access to the database carries jobs, and a link that is cut costs none of them."""

import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from boatyard.gateway.v1.job_pb2 import CreateJobRequest
from boatyard.gateway.v1.job_pb2_grpc import JobServiceStub

from tests.e2e.conftest import Remote
from tests.e2e.test_survival import COUNTING, LINES
from tests.kit import processes
from tests.kit.cell import Cell, eventually, running_cell
from tests.kit.link import Link, linked
from tests.kit.model_provider import messages, served
from tests.kit.mounts import unmount_below

pytestmark = pytest.mark.slow

LEASE_SECONDS = 3.0


class Coordinator(Cell):
    """A cell that carries jobs of a gateway elsewhere."""

    def __init__(self, home: Path, upstream: str, token: str, capacity: int = 4) -> None:
        super().__init__(home)
        self.command = "coordinator"
        self.arguments = ("--upstream", upstream, "--capacity", str(capacity))
        self.environment["BOATYARD_TOKEN"] = token
        self.environment["BOATYARD_INSECURE"] = "1"  # links and ports of this test's own, without certificates

    @property
    def cell_id(self) -> str:
        return (self.home / "coordinator" / "coordinator-id").read_text().strip()

    def at_work(self, marker: str) -> set[int]:
        """Return the processes with a marker that are this machine's."""
        own = processes.with_descendants(processes.with_environment({"BOATYARD_HOME": str(self.home)}))
        return set(own) & set(processes.with_marker(marker))


@pytest.fixture(scope="module")
def gateway() -> Iterator[Cell]:
    """A cell that takes no job itself."""
    directory = Path(tempfile.mkdtemp(prefix="boatyard-e2e-"))
    lease = str(LEASE_SECONDS)
    with running_cell(directory, BOATYARD_GATEWAY_MAX_JOBS="0", BOATYARD_GATEWAY_LEASE_SECONDS=lease) as cell:
        yield cell
    shutil.rmtree(directory)


@contextmanager
def coordinating(gateway: Cell, upstream: str, capacity: int = 4, **environment: str) -> Iterator[Coordinator]:
    """Run a coordinator with a token of its own; end it and prove that nothing of it is left."""
    directory = Path(tempfile.mkdtemp(prefix="boatyard-e2e-"))
    (made,) = gateway.lines("token", "create", "--role", "coordinator")
    coordinator = Coordinator(directory / "home", upstream, made["secret"], capacity)
    try:
        coordinator.up(**environment)
        yield coordinator
    finally:
        coordinator.down()
        unmount_below(coordinator.home)
    left = processes.with_environment({"BOATYARD_HOME": str(coordinator.home)})
    assert not left, f"processes left behind: {left}"
    shutil.rmtree(directory)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fail", [Link.cut, Link.silence, Link.forget])
def test_a_link_that_fails_twice_costs_no_job(gateway: Cell, remote: Remote, fail: Callable[[Link], None]) -> None:
    """With BOATYARD_TEST_JOBS=50 in the environment as many jobs."""

    def fail_for(seconds: float) -> None:
        fail(link)
        time.sleep(seconds)  # what is tried is that much time
        link.mend()

    count = int(os.environ.get("BOATYARD_TEST_JOBS", "8"))
    with linked(gateway.address("gateway")) as link, coordinating(gateway, link.address, capacity=8) as coordinator:
        assert not any("DATABASE" in name for name in coordinator.environment)
        (repository,) = gateway.lines("repository", "create", "--url", remote.path)
        jobs = submitted(gateway, repository["repository_id"], count)
        eventually(lambda: succeeded(gateway, count) >= 2, "some jobs are done", timeout=120)
        fail_for(LEASE_SECONDS / 3)
        eventually(lambda: succeeded(gateway, count) >= count // 2, "half of the jobs are done", timeout=240)
        fail_for(2 * LEASE_SECONDS)
        eventually(lambda: succeeded(gateway, count) == count, "all jobs are done", timeout=240)
        for job in gateway.lines("ps", "--limit", str(count)):
            number = jobs[job["job_id"]]
            assert job["cell_id"] == coordinator.cell_id
            assert len(job["execution_ids"]) == 1, "nobody else was there, so no attempt was lost"
            assert remote.show(f"boatyard/{job['job_id']}:new.txt") == str(number)
            if number % 5 == 0:
                assert gateway.output(job["execution_id"]) == b"one\ntwo\n"


def submitted(gateway: Cell, repository_id: str, count: int) -> dict[str, int]:
    """Submit jobs, each with a number; return their numbers by id. By stubs, for a command takes as long as a job."""
    token = ("authorization", f"Bearer {(gateway.home / 'token').read_text().strip()}")
    found = {}
    with grpc.insecure_channel(gateway.address("gateway")) as channel:
        for number in range(count):
            command = f"echo one; sleep 0.3; echo {number} > new.txt; echo two"
            spec = {"prompt": "Do it.", "repository_id": repository_id, "agent": {"command": {"line": command}}}
            answer = JobServiceStub(channel).CreateJob(CreateJobRequest(spec=spec), metadata=[token])
            found[answer.job.job_id] = number
    return found


def succeeded(gateway: Cell, count: int) -> int:
    return sum(job["state"] == "SUCCEEDED" for job in gateway.lines("ps", "--limit", str(count)))


def test_both_ends_are_killed_in_mid_run(gateway: Cell, remote: Remote) -> None:
    with coordinating(gateway, gateway.address("gateway")) as coordinator:
        job = gateway.submit(remote.path, COUNTING)
        with gateway.start("logs", "--follow", job["execution_id"]) as viewer:
            assert viewer.stdout
            first = viewer.stdout.readline()  # who is connected goes on; who comes while nobody is there is told so
            coordinator.kill_service("coordinator")
            gateway.kill_service("gateway")

            ended = gateway_result(gateway, job["job_id"])
            assert ended["state"] == "SUCCEEDED"
            assert ended["execution_ids"] == [job["execution_id"]]
            assert gateway.output(job["execution_id"]) == LINES
            assert remote.show(f"boatyard/{job['job_id']}:starts.txt") == "started"
            assert first + viewer.stdout.read() == LINES


def gateway_result(gateway: Cell, job_id: str) -> dict:
    """Wait for a job's end, over a gateway that is away for a while."""

    def ended() -> dict | None:
        found = gateway.lines("show", job_id, code=None)
        return found[0] if found and found[0].get("state") in ("SUCCEEDED", "FAILED", "CANCELLED") else None

    answer = eventually(ended, f"{job_id} ends")
    assert isinstance(answer, dict)
    return answer


def test_what_others_have_taken_over_ends_here(gateway: Cell, remote: Remote) -> None:
    marker = uuid.uuid4().hex
    with linked(gateway.address("gateway")) as link, coordinating(gateway, link.address) as cut_off:
        job = gateway.submit(remote.path, f": {marker}; sleep 600; : {marker}")
        eventually(lambda: cut_off.at_work(marker), "the agent is at work")
        link.cut()
        with coordinating(gateway, gateway.address("gateway")) as other:
            eventually(lambda: other.at_work(marker), "the other machine has begun the job anew")
            assert cut_off.at_work(marker), "nobody could tell the first one"
            link.mend()
            eventually(lambda: not cut_off.at_work(marker), "the first one's agent is ended")
            assert other.at_work(marker)
            gateway.boatyard("cancel", job["job_id"])
            ended = gateway.result(job["job_id"])
            assert (ended["state"], ended["cell_id"]) == ("CANCELLED", other.cell_id)
            assert len(ended["execution_ids"]) == 2
            eventually(lambda: not processes.with_marker(marker), "nothing of the job runs anywhere")


@pytest.mark.timeout(600)
def test_what_its_agents_use_is_counted_like_everybody_elses(gateway: Cell, remote: Remote) -> None:
    """Two projects, two models and a second attempt, all carried by a coordinator, and summed by the gateway."""
    call = "curl -sS -H x-api-key:$ANTHROPIC_API_KEY -d '{}' $ANTHROPIC_BASE_URL/v1/messages >/dev/null"
    (project,) = gateway.lines("project", "create")
    known, unknown = "claude-sonnet-5-5", "a-model-of-our-own"
    models = iter([known, known, known, unknown, known])
    with served(lambda _: messages(message_id=f"msg_{uuid.uuid4()}", model=next(models))) as url:
        own = {"ANTHROPIC_API_KEY": "sk-of-the-coordinator", "ANTHROPIC_BASE_URL": url}
        with coordinating(gateway, gateway.address("gateway"), **own):
            job = gateway.submit(remote.path, f"{call}; {call}; exit 3")
            assert gateway.result(job["job_id"])["reason"] == "AGENT_FAILED"
            gateway.boatyard("retry", job["job_id"])
            eventually(lambda: len(gateway.lines("show", job["job_id"])[0]["usage"]) > 1, "both models are counted")
            other = gateway.submit(remote.path, call, "--project", project["project_id"])
            assert gateway.result(other["job_id"])["state"] == "SUCCEEDED"
    rows = gateway.lines("cost", "--by", "job", "--by", "model", "--since", "2d")
    of_job = {row["model"]: row for row in rows if row.get("job_id") == job["job_id"]}
    assert {model: row["requests"] for model, row in of_job.items()} == {known: 3, unknown: 1}
    assert (of_job[unknown]["cost_usd"], of_job[unknown]["unpriced_requests"]) == (None, 1)
    assert rows[-1]["kind"] == "total"
    table = gateway.boatyard("cost", "--by", "project", "--by", "provider").decode().splitlines()
    assert [line.split("\t")[:4] for line in table[1:-1]] == [
        ["default", "anthropic", "1", "4"],
        [project["project_id"], "anthropic", "1", "1"],
    ]
    assert "≥ $" in gateway.boatyard("ps").decode()
