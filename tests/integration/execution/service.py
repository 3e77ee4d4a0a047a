"""The real execution service, as a process of its own that a test may kill and start again."""

import asyncio
import os
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from boatyard.agent.v1.agent_pb2 import AgentSettings
from boatyard.execution.v1 import execution_pb2 as pb
from boatyard.execution.v1.execution_pb2_grpc import ExecutionServiceStub
from boatyard.workspace.v1 import layout_pb2
from google.protobuf.duration_pb2 import Duration

from services.common.home import Home
from services.common.rpc.channel import open_channel
from tests.kit.databases import add_databases
from tests.kit.uids import give_to_agents

State = pb.NodeExecution.State

EVERYTHING = {"ALLOWED_TIERS": "bubblewrap,container,none", "ALLOWED_NETWORKS": "none,allow_list,open"}
"""Settings that let executions choose everything: most tests are about what a tier does, not about who may have it."""


@dataclass
class Seen:
    """Everything that one viewer received."""

    events: list
    end: pb.NodeExecution

    @property
    def output(self) -> bytes:
        return b"".join(event.output.data for event in self.events)

    def check_whole(self, first: int = 1) -> None:
        sequences = [event.sequence for event in self.events]
        assert sequences == list(range(first, first + len(sequences))), "events have a gap, or one is there twice"
        assert self.end.last_sequence == sequences[-1]


class Service:
    """One data directory, on which a service runs or not."""

    def __init__(self, directory: Path, **settings: str) -> None:
        self.home = directory / "home"
        self.workspace = directory / "workspace"
        self.workspace.mkdir()
        if settings.get("SANDBOX_TIER") != "container":  # whose programs have our uid
            give_to_agents(self.workspace)
        add_databases(self.home, "execution")
        Home(self.home).directory("run")
        self.address = Home(self.home).socket("execution")
        self._settings = {f"BOATYARD_EXECUTION_{name}": value for name, value in (EVERYTHING | settings).items()}
        self._log = directory / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **settings: str) -> None:
        """Start it; `settings` are changed for good."""
        self._settings |= {f"BOATYARD_EXECUTION_{name}": value for name, value in settings.items()}
        variables = {"BOATYARD_HOME": str(self.home), **self._settings}
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.execution"], env=os.environ | variables, stderr=log
            )

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        assert self.process
        self.process.terminate()
        assert self.process.wait(timeout=20) == 0, self._log.read_text()

    def run_directory(self, execution_id: str) -> Path:
        return self.home / "execution" / "runs" / execution_id

    def spec(self, line: str | list[str], prompt: str = "", **fields: object) -> pb.ExecutionSpec:
        """Make a specification; `fields` are those of ExecutionSpec and of AgentSettings, a list is a program."""
        own = {*AgentSettings.DESCRIPTOR.fields_by_name} - {*pb.ExecutionSpec.DESCRIPTOR.fields_by_name}
        settings = {name: fields.pop(name) for name in own & fields.keys()}
        spec = pb.ExecutionSpec(
            purpose=pb.ExecutionSpec.PURPOSE_AGENT,
            layout=layout_pb2.Layout(path=str(self.workspace)),
            agent=AgentSettings(**settings),
            prompt=prompt,
        )
        if line:
            spec.agent.command.line = line if isinstance(line, str) else f"exec {shlex.join(line)}"
        spec.MergeFrom(pb.ExecutionSpec(**fields))
        return spec


class Client:
    """Calls a service."""

    def __init__(self, service: Service, stub: ExecutionServiceStub) -> None:
        self.service = service
        self.stub = stub

    async def start(self, execution_id: str, line: str | list[str], **fields: object) -> pb.NodeExecution:
        request = pb.StartExecutionRequest(execution_id=execution_id, spec=self.service.spec(line, **fields))
        return (await self.stub.StartExecution(request, wait_for_ready=True, timeout=60)).execution

    async def get(self, execution_id: str) -> pb.NodeExecution:
        return (await self.stub.GetExecution(pb.GetExecutionRequest(execution_id=execution_id), timeout=60)).execution

    async def end(self, execution_id: str) -> pb.NodeExecution:
        """Wait for the end, across restarts of the service."""
        request = pb.WaitExecutionRequest(execution_id=execution_id)
        execution = (await self.stub.WaitExecution(request, timeout=60, wait_for_ready=True)).execution
        assert execution.state > State.STATE_RUNNING, execution
        return execution

    async def run(self, execution_id: str, line: str | list[str], **fields: object) -> pb.NodeExecution:
        await self.start(execution_id, line, **fields)
        return await self.end(execution_id)

    async def stop(self, execution_id: str, grace: float) -> pb.NodeExecution:
        request = pb.StopExecutionRequest(execution_id=execution_id, grace=Duration(nanos=round(grace * 1e9) % 10**9))
        request.grace.seconds = int(grace)
        return (await self.stub.StopExecution(request, timeout=60)).execution

    async def watch(self, execution_id: str, first: int = 0, until: bytes | None = None) -> Seen:
        """Follow to the end, or until the output contains `until`."""
        request = pb.WatchEventsRequest(execution_id=execution_id, from_sequence=first, follow=True)
        call = self.stub.WatchEvents(request, wait_for_ready=True)
        seen = Seen([], pb.NodeExecution())
        tail = b""
        async for message in call:
            seen.events += message.events
            if message.HasField("end"):
                seen.end = message.end
            if until is not None:
                tail = tail[-len(until) :] + b"".join(event.output.data for event in message.events)
                if until in tail:
                    call.cancel()
                    break
        return seen


@asynccontextmanager
async def running(directory: Path, **settings: str) -> AsyncIterator[Client]:
    """Run the service during the block, and end all executions after it."""
    service = Service(directory, **settings)
    service.start()
    # A call may use the connection to a service that was killed a moment ago: it is retried, as other callers do.
    described = [pb.DESCRIPTOR.services_by_name["ExecutionService"]]
    try:
        async with open_channel(service.address, Home(service.home).cell_token(), services=described) as channel:
            client = Client(service, ExecutionServiceStub(channel))
            await client.stub.ListExecutions(pb.ListExecutionsRequest(), wait_for_ready=True, timeout=60)
            yield client
            await _end_all(client)
    finally:
        service.stop()


async def _end_all(client: Client) -> None:
    request = pb.ListExecutionsRequest(states=[State.STATE_PENDING, State.STATE_RUNNING])
    active = (await client.stub.ListExecutions(request, wait_for_ready=True, timeout=60)).executions
    await asyncio.gather(*(client.stop(execution.execution_id, 0) for execution in active))
    await asyncio.gather(*(client.end(execution.execution_id) for execution in active))
