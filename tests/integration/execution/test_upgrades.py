"""What a version before asked a node for, asked for again by this one."""

import asyncio

from services.agent.settings import AgentSettings, CommandEngine
from services.common.fence import Fence
from services.common.ids import new_id
from services.common.rpc.channel import open_channel
from services.common.settings import Home
from services.lifecycle.model.node_work import Launch, Layout
from services.lifecycle.model.states import ExecutionState, Purpose
from services.lifecycle.nodes import Nodes
from tests.integration.execution.service import Client


async def test_an_agent_that_another_version_started_is_found(shared: Client) -> None:
    """A driver that was replaced before it had recorded the start asks again, in the words of its own version."""
    name, service = new_id("exec"), shared.service
    await shared.start(name, "echo x >> started", environment={"BOATYARD_MODEL": "as it was told before"})
    launch = Launch(
        purpose=Purpose.AGENT,
        layout=Layout(path=str(service.workspace).encode()),
        agent=AgentSettings(engine=CommandEngine(line="echo x >> started"), model="as it is told now"),
        prompt=b"",
    )
    async with open_channel(service.address, Home(service.home).cell_token()) as channel:
        nodes = Nodes(channel, channel, channel).for_job(Fence("job-1", 1), asyncio.sleep)
        found = await nodes.executions.start(name, launch)
        assert found.execution_id == name
        assert (await nodes.executions.wait(name)).state is ExecutionState.SUCCEEDED
    assert (service.workspace / "started").read_text() == "x\n", "it was not started again"
