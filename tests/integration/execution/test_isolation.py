"""The machine decides what may be chosen of tiers and networks; a job goes on with what it has begun with."""

import sqlite3
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from boatyard.agent.v1 import sandbox_pb2
from boatyard.execution.v1 import execution_pb2 as pb

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


@pytest.mark.parametrize("of_the_version_before", [False, True])
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
