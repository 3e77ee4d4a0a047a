"""A HOME that is kept: on disk, its agent's alone, and bounded with the workspace. In memory, it is gone afterwards."""

import os
import secrets
from pathlib import Path

import pytest
from boatyard.agent.v1 import sandbox_pb2
from boatyard.execution.v1 import execution_pb2 as pb

from services.common.errors import Invalid
from services.common.ids import new_id
from tests.integration.execution.service import Client, State
from tests.integration.execution.test_contract import refused
from tests.kit.uids import give_to_agents

BUBBLEWRAP, NONE = sandbox_pb2.SANDBOX_TIER_BUBBLEWRAP, sandbox_pb2.SANDBOX_TIER_NONE


@pytest.fixture
def home(tmp_path: Path) -> Path:
    directory = tmp_path / "home"
    directory.mkdir(mode=0o700)
    return directory


async def ran(client: Client, line: str, home: Path | str = "", **fields: object) -> tuple[pb.NodeExecution, str]:
    name = new_id("home")
    spec = client.service.spec(line, home_path=str(home), **fields)
    await client.stub.StartExecution(pb.StartExecutionRequest(execution_id=name, spec=spec), timeout=60)
    seen = await client.watch(name)
    return seen.end, seen.output.decode()


@pytest.mark.parametrize("tier", [BUBBLEWRAP, NONE])
async def test_what_an_agent_leaves_in_its_home_the_next_one_finds(shared: Client, home: Path, tier: int) -> None:
    if tier == BUBBLEWRAP:
        give_to_agents(home)
    own = {"sandbox_tier": tier}
    _, where = await ran(shared, 'echo kept > ~/file; mkdir ~/.config; cd; pwd; touch "$TMPDIR/scratch"', home, **own)
    assert where.strip() == ("/home/agent" if tier == BUBBLEWRAP else str(home))
    assert (await ran(shared, "cat ~/file; ls -A ~", home, **own))[1].split() == ["kept", ".config", "file"]
    assert (home / "file").stat().st_uid == home.stat().st_uid, "it is the agent's own"
    assert "file" not in (await ran(shared, "ls -A ~", **own))[1], "without that HOME there is a new one"
    assert "HOME" not in os.environ or not (Path(os.environ["HOME"]) / "file").exists()


async def test_it_counts_as_the_workspaces_growth_from_the_beginning(shared: Client, home: Path) -> None:
    give_to_agents(home)
    fill = "head -c 3000000 /dev/zero > ~/a; sync ~/a; sleep 20"
    end, _ = await ran(shared, fill, home, disk_bytes=2_000_000)
    assert (end.state, end.reason) == (State.STATE_FAILED, "DISK_LIMIT")
    assert "its workspace with its HOME" in end.message
    end, _ = await ran(shared, "sleep 20", home, disk_bytes=2_000_000)
    assert end.reason == "DISK_LIMIT", "that of the round before counts"
    end, _ = await ran(shared, "ls ~", home, disk_bytes=20_000_000, scratch_bytes=1 << 20)
    assert end.state == State.STATE_SUCCEEDED, "the bound of what is in memory is not for what is on disk"


async def test_no_secret_is_put_there(shared: Client, home: Path) -> None:
    """The files of secrets are in memory, whatever the round before has put where they might be."""
    give_to_agents(home)
    (home / ".boatyard").symlink_to("/etc")
    value = secrets.token_hex(24)
    spec = shared.service.spec('cat "$BOATYARD_SECRETS_DIR/KEY" && ls -A ~', home_path=str(home))
    spec.agent.secrets["KEY"] = value
    name = new_id("home")
    await shared.stub.StartExecution(pb.StartExecutionRequest(execution_id=name, spec=spec), timeout=60)
    seen = await shared.watch(name)
    assert seen.end.state == State.STATE_SUCCEEDED
    assert seen.output.startswith(b"[redacted:KEY]")
    assert not [each for each in home.rglob("*") if each.is_file() and value.encode() in each.read_bytes()]


@pytest.mark.parametrize("path", ["home", "/../..", "/"])
async def test_a_path_that_would_open_more_is_refused(shared: Client, path: str) -> None:
    spec = shared.service.spec("true", home_path=path)
    error = await refused(shared.stub.StartExecution(pb.StartExecutionRequest(execution_id=new_id("home"), spec=spec)))
    assert isinstance(error, Invalid)
    assert [field for field, _ in error.violations] == ["spec.home_path"]
