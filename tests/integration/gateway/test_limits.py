"""How far an agent may go, as a job says it: what was hit is the reason, and what was used is told."""

from boatyard.gateway.v1 import job_pb2

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
