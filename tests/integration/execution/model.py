"""An execution service whose model plays a script."""

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from boatyard.agent.v1 import model_pb2
from boatyard.agent.v1.agent_pb2 import AnthropicEngine
from boatyard.execution.v1 import execution_pb2 as pb

from services.agent.providers import EVERYWHERE
from tests.integration.execution.service import Client, Seen, running
from tests.kit.replay import Replay, replaying, write_script

# Unique to this process: whoever else shows this key got it from here.
KEY = f"sk-ant-sworn-to-secrecy-{secrets.token_hex(8)}"


@dataclass
class ModelClient:
    """A client of the service, and the replay that records what the model was asked."""

    client: Client
    replay: Replay
    key: str
    """The key of its provider; without one it has none."""
    _last: pb.StartExecutionRequest = field(default_factory=pb.StartExecutionRequest)

    async def start(self, execution_id: str, **fields: object) -> pb.NodeExecution:
        """Start an agent with a model; `fields` are those of AnthropicEngine, AgentSettings and ExecutionSpec."""
        own = {name: fields.pop(name) for name in {*AnthropicEngine.DESCRIPTOR.fields_by_name} & fields.keys()}
        spec = self.client.service.spec("", **{"model": "claude-sonnet-5-5", "prompt": "Do it.", **fields})
        spec.agent.anthropic.MergeFrom(AnthropicEngine(**own))
        if self.key:
            wire = model_pb2.MODEL_WIRE_MESSAGES
            own = model_pb2.ModelProvider(name="anthropic", wire=wire, base_url=self.replay.url, keys=[self.key])
            own.allowed_addresses.extend(EVERYWHERE)
            spec.providers.append(own)
        return await self.start_once_more(pb.StartExecutionRequest(execution_id=execution_id, spec=spec))

    async def start_once_more(self, request: pb.StartExecutionRequest | None = None) -> pb.NodeExecution:
        """Send a request, or the last one again: a service that was restarted has no keys until its caller does so."""
        self._last = request or self._last
        return (await self.client.stub.StartExecution(self._last, wait_for_ready=True)).execution

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
        async with running(directory, **settings) as client:
            yield ModelClient(client, replay, key)
