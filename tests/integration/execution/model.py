"""An execution service whose model plays a script."""

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from boatyard.agent.v1.agent_pb2 import AnthropicEngine
from boatyard.execution.v1 import execution_pb2 as pb

from tests.integration.execution.service import Client, Seen, running
from tests.kit.replay import Replay, replaying, write_script

# Unique to this process: whoever else shows this key got it from here.
KEY = f"sk-ant-sworn-to-secrecy-{secrets.token_hex(8)}"


@dataclass
class ModelClient:
    """A client of the service, and the replay that records what the model was asked."""

    client: Client
    replay: Replay

    async def start(self, execution_id: str, **fields: object) -> pb.NodeExecution:
        """Start an agent with a model; `fields` are those of AnthropicEngine, AgentSettings and ExecutionSpec."""
        own = {name: fields.pop(name) for name in {*AnthropicEngine.DESCRIPTOR.fields_by_name} & fields.keys()}
        spec = self.client.service.spec("", **{"model": "claude-sonnet-5-5", "prompt": "Do it.", **fields})
        spec.agent.anthropic.MergeFrom(AnthropicEngine(**own))
        request = pb.StartExecutionRequest(execution_id=execution_id, spec=spec)
        return (await self.client.stub.StartExecution(request, wait_for_ready=True)).execution

    async def run(self, execution_id: str, **fields: object) -> Seen:
        """Start an agent with a model, and follow it to its end."""
        await self.start(execution_id, **fields)
        seen = await self.client.watch(execution_id)
        seen.check_whole()
        return seen

    async def until(self, execution_id: str, kind: str, count: int = 1) -> Seen:
        """Follow until there are `count` events of a kind."""
        request = pb.WatchEventsRequest(execution_id=execution_id, follow=True)
        call = self.client.stub.WatchEvents(request, wait_for_ready=True)
        seen = Seen([], pb.NodeExecution())
        async for message in call:
            seen.events += message.events
            if len(of(seen, kind)) >= count:
                call.cancel()
                return seen
        raise AssertionError(f"{execution_id} ended without {count} {kind}: {message.end}")


def of(seen: Seen, kind: str) -> list:
    """Return the events of a kind."""
    return [getattr(event, kind) for event in seen.events if event.WhichOneof("kind") == kind]


def results(seen: Seen) -> list[str]:
    """Return what the tools answered."""
    return [result.output for result in of(seen, "tool_result")]


@asynccontextmanager
async def playing(
    directory: Path, replies: Sequence[dict], key: str = KEY, **settings: str
) -> AsyncIterator[ModelClient]:
    """Run the service with the replay as its model."""
    script = write_script(directory / "script.toml", replies)
    with replaying(directory, script, key=KEY) as replay:
        variables = {"ANTHROPIC_API_KEY": key, "ANTHROPIC_BASE_URL": replay.url}
        async with running(directory, variables=variables, **settings) as client:
            yield ModelClient(client, replay)
