"""The machine decides what may be chosen of tiers and networks; a job goes on with what it has begun with."""

import sqlite3
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from boatyard.agent.v1 import sandbox_pb2
from boatyard.execution.v1 import execution_pb2 as pb
from google.protobuf.duration_pb2 import Duration

from services.common.errors import FailedPrecondition
from services.common.ids import new_id
from services.common.rpc.status import service_error
from tests.integration.execution.service import EVERYTHING, Client, State, running

NONE, OPEN = sandbox_pb2.SANDBOX_TIER_NONE, sandbox_pb2.NETWORK_OPEN
DEFAULT = dict.fromkeys(EVERYTHING, "")


async def refusal(client: Client, **fields: object) -> FailedPrecondition:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.start(new_id("isolation"), "true", **fields)
    error = service_error(caught.value)
    assert isinstance(error, FailedPrecondition)
    return error


async def test_by_default_neither_tier_none_nor_network_open_may_be_chosen(directory: Path) -> None:
    async with running(directory, **DEFAULT) as client:
        tier, network = await refusal(client, sandbox_tier=NONE), await refusal(client, network=OPEN)
        node = await client.stub.DescribeNode(pb.DescribeNodeRequest())
        await client.run("allowed", "true")
    (carried,) = [each for each in node.capabilities if each.name == "network"]
    assert (carried.provided_by, "no UDP" in carried.complaint) == ("nf_tables", True)
    assert tier.reason == "TIER_NOT_ALLOWED"
    assert "BOATYARD_EXECUTION_ALLOWED_TIERS allows bubblewrap, container" in tier.message
    assert network.reason == "NETWORK_NOT_ALLOWED"
    assert "BOATYARD_EXECUTION_ALLOWED_NETWORKS allows allow_list, none" in network.message
    assert list(node.allowed_tiers) == [sandbox_pb2.SANDBOX_TIER_BUBBLEWRAP, sandbox_pb2.SANDBOX_TIER_CONTAINER]
    assert list(node.allowed_networks) == [sandbox_pb2.NETWORK_NONE, sandbox_pb2.NETWORK_ALLOW_LIST]


async def test_what_a_setting_allows_may_be_chosen(directory: Path) -> None:
    async with running(directory, ALLOWED_TIERS="bubblewrap, none", ALLOWED_NETWORKS="allow-list") as client:
        assert (await client.run("none", "true", sandbox_tier=NONE)).state == State.STATE_SUCCEEDED
        assert (await client.run("alone", "true")).state == State.STATE_SUCCEEDED, "network NONE always may be"
        refused = await refusal(client, sandbox_tier=sandbox_pb2.SANDBOX_TIER_CONTAINER, image="example")
        assert refused.reason in {"TIER_NOT_ALLOWED", "IMAGE_NOT_ALLOWED"}
        assert (await refusal(client, network=OPEN)).reason == "NETWORK_NOT_ALLOWED"


MOST = {
    "timeout": Duration(seconds=60),
    "idle_timeout": Duration(seconds=30),
    "max_turns": 5,
    "token_budget": 1000,
    "memory_bytes": 1 << 28,
    "processes": 100,
    "disk_bytes": 1 << 24,
    "output_bytes": 1 << 20,
    "cpu_seconds": 40,
    "open_files": 200,
    "file_size_bytes": 1 << 23,
}
TOLD = {"timeout": "timeout_seconds", "idle_timeout": "idle_timeout_seconds"}
NOT_TOLD = {"max_turns", "token_budget"}


def more(most: object) -> object:
    return Duration(seconds=most.seconds + 1) if isinstance(most, Duration) else most + 1  # type: ignore[operator]


async def test_more_than_a_setting_allows_may_not_be_asked_for(directory: Path) -> None:
    limits = ",".join(f"{name}={most.seconds if isinstance(most, Duration) else most}" for name, most in MOST.items())
    async with running(directory, LIMITS=limits) as client:
        node = await client.stub.DescribeNode(pb.DescribeNodeRequest())
        assert {field.name: most for field, most in node.limits.ListFields()} == MOST
        for name, most in MOST.items():
            refused = await refusal(client, **{name: more(most)})
            assert (refused.reason, name in refused.message) == ("LIMIT_NOT_ALLOWED", True), refused.message
            assert "BOATYARD_EXECUTION_LIMITS" in refused.message
        # Who asks for nothing has what is allowed, though the defaults are more, or nothing.
        open_ended, asking = new_id("open"), new_id("asking")
        await client.start(open_ended, "env | grep BOATYARD_LIMIT_")
        told = (await client.watch(open_ended)).output.decode().splitlines()
        seen = dict(line.removeprefix("BOATYARD_LIMIT_").lower().split("=") for line in told)
        for name in MOST.keys() - NOT_TOLD:
            most = MOST[name]
            assert float(seen[TOLD.get(name, name)]) == (most.seconds if isinstance(most, Duration) else most), name
        assert (await client.run(asking, "true", **MOST)).state == State.STATE_SUCCEEDED


async def test_checks_and_hooks_have_no_more_than_agents(directory: Path) -> None:
    async with running(directory, LIMITS="timeout=1") as client:
        for purpose in (pb.ExecutionSpec.PURPOSE_VERIFY, pb.ExecutionSpec.PURPOSE_HOOK):
            await client.start(which := new_id("check"), "sleep 60", purpose=purpose, timeout=Duration(seconds=50))
            assert (await client.end(which)).reason == "TIMED_OUT"


async def test_a_job_goes_on_with_as_much_as_it_had(directory: Path) -> None:
    async with running(directory) as client:
        asked = {"timeout": Duration(seconds=50)}
        await client.run(new_id("agent"), "true", job_id="begun", **asked)
        await client.run(new_id("hook"), "true", job_id="hooked", purpose=pb.ExecutionSpec.PURPOSE_HOOK)
        client.service.stop()
        client.service.start(LIMITS="timeout=40")
        another_round = await client.start(new_id("agent"), "true", job_id="begun", **asked)
        assert (await client.end(another_round.execution_id)).state == State.STATE_SUCCEEDED
        assert (await refusal(client, job_id="hooked", **asked)).reason == "LIMIT_NOT_ALLOWED"
        assert (await refusal(client, job_id="another", **asked)).reason == "LIMIT_NOT_ALLOWED"


@pytest.mark.parametrize("of_the_version_before", [False, pytest.param(True, marks=pytest.mark.slow)])
async def test_a_job_ends_as_it_began(directory: Path, *, of_the_version_before: bool) -> None:
    """When the setting is changed, or came with an upgrade, a job's later executions are still started: its checks."""
    async with running(directory) as client:
        service = client.service
        await client.run("agent", "true", job_id="begun", sandbox_tier=NONE, network=OPEN)
        service.stop()
        if of_the_version_before:
            with closing(sqlite3.connect(service.home / "execution" / "execution.db")) as database, database:
                database.execute("UPDATE executions SET network = NULL")
        service.start(**DEFAULT)
        check = await client.start("check", "true", job_id="begun", sandbox_tier=NONE, network=OPEN)
        assert (await client.end(check.execution_id)).state == State.STATE_SUCCEEDED
        assert (await refusal(client, job_id="another", sandbox_tier=NONE)).reason == "TIER_NOT_ALLOWED"
        assert (await refusal(client, job_id="another", network=OPEN)).reason == "NETWORK_NOT_ALLOWED"
        assert (await refusal(client, sandbox_tier=NONE)).reason == "TIER_NOT_ALLOWED"
