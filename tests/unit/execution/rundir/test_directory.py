"""The run directory: one side reads what the other wrote, and the lock shows who holds it."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.agent.engines import ENGINES
from services.execution.model import MARK, Bounds, Plan, Reason, Result, State
from services.execution.rundir.directory import RunDirectory, StopRequest
from services.sandbox.spec import Limits, Mount, MountAccess, Network, Overlay, SandboxSpec, Tier

PATHS = st.sampled_from([Path("/workspace"), Path("/a b/ü"), Path("/bytes-\udcff")])
MOUNTS = st.builds(Mount, PATHS, PATHS, st.sampled_from(MountAccess)) | st.builds(
    Overlay, st.lists(PATHS, min_size=1).map(tuple), PATHS, PATHS, PATHS
)
SPECS = st.builds(
    SandboxSpec,
    argv=st.lists(st.binary(max_size=20), min_size=1, max_size=4).map(tuple),
    cwd=PATHS,
    mounts=st.lists(MOUNTS, max_size=3).map(tuple),
    environment=st.dictionaries(st.text("ABC", min_size=1), st.binary(max_size=20), max_size=3),
    network=st.sampled_from(Network),
    limits=st.builds(Limits, st.none() | st.integers(1), st.none() | st.integers(1)),
    tier=st.sampled_from(Tier),
)
PLANS = st.builds(
    Plan,
    st.just("run"),
    st.sampled_from(sorted(ENGINES)),
    SPECS,
    st.builds(Bounds, st.floats(0.1, 1e6), st.none() | st.just(3.0), st.just(9)),
    has_door=st.booleans(),
    no_door=st.sampled_from(["", "why"]),
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(plan=PLANS)
def test_a_plan_arrives_as_it_was_and_is_forgotten_when_begun(tmp_path_factory, plan: Plan) -> None:
    run = RunDirectory(tmp_path_factory.mktemp("runs") / "run")
    run.create(plan, b"input")
    assert run.path.stat().st_mode & 0o777 == 0o700
    marked = {**plan.sandbox.environment, MARK: run.mark.encode()}
    assert run.plan() == replace(plan, sandbox=replace(plan.sandbox, environment=marked))
    assert run.stdin.read_bytes() == b"input"
    assert run.started_time_ns() is None
    run.mark_started(17)
    assert run.started_time_ns() == 17
    assert not (run.path / "plan").exists()


def test_a_result_and_a_stop_arrive(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert run.result() is None
    assert run.stop_request() is None
    result = Result(State.FAILED, Reason.IDLE, "quiet", None, 9, 0, 1, 2, 3, 4)
    run.write_result(result)
    assert run.result() == result
    run.request_stop(StopRequest(2.5))
    assert run.stop_request() == StopRequest(2.5)


def test_the_lock_has_one_holder_whose_pid_is_known(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert run.holder() is None
    program = (
        "import sys; from pathlib import Path; from services.execution.rundir.directory import RunDirectory;"
        "RunDirectory(Path(sys.argv[1])).hold(); print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with other:
        assert other.stdout.readline() == b"held\n"
        assert run.holder() == other.pid
        assert run.hold() is None
        other.stdin.close()
    assert run.holder() is None
