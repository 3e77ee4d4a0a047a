"""What agents use of models is counted where it is used, and answered by project and model."""

import asyncio
import os
import signal

import pytest
from boatyard.agent.v1 import model_pb2
from boatyard.gateway.v1 import catalog_pb2, cost_pb2, job_pb2

from services.agent.providers import EVERYWHERE, ModelProvider, ModelWire
from services.agent.settings import AgentSettings, CommandEngine
from services.common.ids import new_id
from services.execution.rundir.directory import RunDirectory
from services.gateway.cost.model import CostQuery
from services.gateway.cost.store import CostStore
from services.gateway.ledger.sql_ledger import SqlLedger
from services.lifecycle.driver import Driver
from services.lifecycle.nodes import Nodes, executions
from tests.kit.ledger import Books, expire_leases
from tests.kit.model_provider import ProviderServer, messages, providing
from tests.kit.services import Services

CALL = "curl -sS --max-time 60 -H x-api-key:$ANTHROPIC_API_KEY -d '{}' $ANTHROPIC_BASE_URL/v1/messages >/dev/null"
TOKENS = 403
"""What one answer of the tests' provider says that it used."""
Dimension = cost_pb2.GetCostRequest


async def project(services: Services, at: ProviderServer) -> dict[str, object]:
    """Make a project with a provider; return what a job in it names."""
    project_id, provider_id = new_id("project"), new_id("provider")
    made = catalog_pb2.Project(project_id=project_id)
    await services.catalog.CreateProject(catalog_pb2.CreateProjectRequest(project=made))
    provider = catalog_pb2.Provider(
        provider_id=provider_id,
        project_id=project_id,
        wire=model_pb2.MODEL_WIRE_MESSAGES,
        base_url=at.url,
        keys=["sk-a-key-of-this-test"],
    )
    await services.catalog.CreateProvider(catalog_pb2.CreateProviderRequest(provider=provider))
    return {"project_id": project_id, "agent": {"providers": [provider_id]}}


async def spent(services: Services, spec: dict[str, object]) -> list[tuple[str, int, int, bool]]:
    """Return model, requests, tokens and whether the cost is known, of a project."""
    request = cost_pb2.GetCostRequest(
        project_id=spec["project_id"], group_by=[Dimension.DIMENSION_MODEL, Dimension.DIMENSION_PROVIDER]
    )
    answer = await services.costs.GetCost(request)
    assert {group.provider for group in answer.groups} <= set(spec["agent"]["providers"])
    sums = [(group.model, group.usage) for group in answer.groups]
    return [(model, sum_.requests, sum_.tokens, sum_.HasField("cost_usd")) for model, sum_ in sums]


@pytest.mark.slow
async def test_each_attempt_counts_and_each_project_has_its_own(services: Services) -> None:
    replies = [messages(message_id=f"msg_{number}", model="a-model-without-a-price") for number in range(3)]
    cut = messages(message_id="msg_cut", model="a-model-without-a-price")
    cut.cut = 2  # it has begun, which is billed
    async with providing(lambda _: messages(message_id=new_id("msg"))) as known, providing(*replies, cut) as unknown:
        first, second = await project(services, known), await project(services, unknown)
        failing = await services.run(f"{CALL}; {CALL}; exit 3", **first)
        await services.jobs.RetryJob(job_pb2.RetryJobRequest(job_id=failing.job_id))
        again = await services.ended(failing.job_id)
        await services.run(f"{CALL}; {CALL}; {CALL}; {CALL}; true", **second)
    assert await spent(services, first) == [("claude-sonnet-5-5", 4, 4 * TOKENS, True)]
    assert await spent(services, second) == [("a-model-without-a-price", 4, 3 * TOKENS + 362, False)]
    (of_job,) = again.usage
    assert (of_job.usage.requests, len(again.execution_ids)) == (4, 2)
    assert [row.usage.requests for row in again.output.usage] == [2]


@pytest.mark.slow
async def test_what_a_lost_runner_had_used_counts(services: Services) -> None:
    async with providing(messages()) as at:
        spec = await project(services, at)
        job = await services.submit(f"{CALL}; echo called; sleep 600", policy={"max_attempts": 1}, **spec)
        (execution_id,) = job.execution_ids
        run = RunDirectory(services.home.root / "execution" / "runs" / execution_id)
        async with asyncio.timeout(60):
            while not run.events.exists() or b"msg_1" not in run.events.read_bytes():
                await asyncio.sleep(0.05)
        os.kill(run.holder() or 0, signal.SIGKILL)
        job = await services.ended(job.job_id)
    assert job.reason == "RUNNER_LOST"
    assert await spent(services, spec) == [("claude-sonnet-5-5", 1, TOKENS, True)]


@pytest.mark.slow
async def test_of_a_lost_machine_what_was_last_seen_counts(
    book: Books, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executions, "_WAIT_SECONDS", 1.0)
    async with providing(lambda _: messages(message_id=new_id("msg"))) as at:
        own = ModelProvider(name="own", wire=ModelWire.MESSAGES, base_url=at.url, allowed_addresses=EVERYWHERE)

        def driver(ledger: SqlLedger) -> asyncio.Task[None]:
            made = Driver(ledger, nodes, capacity=1, own_providers=[own])
            return asyncio.create_task(made.run())

        agent = AgentSettings(engine=CommandEngine(line=f"{CALL}; sleep 3"))
        admitted = await book.admit(agent=agent)
        costs = CostStore(book.engine)

        async def tokens() -> int:
            return (await costs.costs(CostQuery())).total.usage.tokens

        async with asyncio.timeout(90):
            lost = driver(await book.cell("one"))
            while not await tokens():
                await asyncio.sleep(0.05)
            lost.cancel()
            await asyncio.gather(lost, return_exceptions=True)
            await expire_leases(book)
            other = driver(await book.cell("two"))
            while not (job := await book.store.job(admitted.spec.job_id)).state.is_final:
                await asyncio.sleep(0.05)
            other.cancel()
            await asyncio.gather(other, return_exceptions=True)
    assert len(job.executions) == 2
    assert await tokens() == 2 * TOKENS
