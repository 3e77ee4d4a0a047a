"""How far an agent may go, as a job says it: what was hit is the reason, and what was used is told."""

import grpc
import pytest
from boatyard.agent.v1 import sandbox_pb2
from boatyard.execution.v1 import event_pb2
from boatyard.gateway.v1 import job_pb2, runtime_pb2

from services.common.rpc.status import service_error
from services.common.rpc.streaming import streaming
from tests.kit.services import Services

HUNGRY = "python3 -c 'import time; data = bytearray(300 << 20); time.sleep(20)'"


async def test_a_job_says_how_much_memory_its_agent_may_have(services: Services) -> None:
    job = await services.run(HUNGRY, agent={"memory_bytes": 64 << 20, "processes": 50})
    assert (job.state, job.reason) == (job_pb2.Job.STATE_FAILED, "MEMORY_LIMIT"), job
    assert (job.spec.agent.memory_bytes, job.spec.agent.processes) == (64 << 20, 50)


async def test_what_an_agent_used_is_told(services: Services) -> None:
    job = await services.run("i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done")
    assert job.state == job_pb2.Job.STATE_SUCCEEDED
    assert job.output.cpu_seconds > 0
    assert job.output.memory_peak_bytes > 0


async def test_a_job_says_which_hosts_its_agent_may_reach(services: Services) -> None:
    ask = "python3 -c 'import urllib.request; urllib.request.urlopen(\"http://refused.example/\")'"
    network = {
        "network": sandbox_pb2.NETWORK_ALLOW_LIST,
        "allowed_hosts": ["allowed.example", "*.allowed.example:8080"],
    }
    job = await services.run(ask, agent=network)
    assert (job.state, job.reason) == (job_pb2.Job.STATE_FAILED, "AGENT_FAILED"), job
    assert list(job.spec.agent.allowed_hosts) == network["allowed_hosts"]
    decisions = event_pb2.EVENT_KIND_NETWORK_DECISION
    request = runtime_pb2.WatchExecutionRequest(execution_id=job.execution_ids[0], kinds=[decisions])
    async with streaming(services.runtime.WatchExecution(request)) as messages:
        seen = [event.network_decision async for message in messages for event in message.events]
    assert [(one.host, one.port, one.allowed) for one in seen] == [("refused.example", 80, False)]


@pytest.mark.parametrize(
    "agent", [{"allowed_hosts": ["example.com"]}, {"network": sandbox_pb2.NETWORK_ALLOW_LIST, "allowed_hosts": ["a b"]}]
)
async def test_hosts_that_nobody_could_reach_are_refused(services: Services, agent: dict) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await services.submit("true", agent=agent)
    assert "spec.agent.allowed_hosts" in service_error(caught.value).message
