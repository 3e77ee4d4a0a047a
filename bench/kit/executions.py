"""Executions at a real service, and what their viewers see."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from boatyard.agent.v1.agent_pb2 import AgentSettings, CommandEngine
from boatyard.execution.v1 import execution_pb2 as pb
from boatyard.execution.v1.execution_pb2_grpc import ExecutionServiceStub
from boatyard.workspace.v1 import layout_pb2
from google.protobuf.duration_pb2 import Duration

from bench.kit.services import running
from services.execution.rundir.directory import RunDirectory
from tests.kit.layout import execution_runs
from tests.kit.processes import with_descendants
from tests.kit.services import Services

_AT_ONCE = 256
_PATIENCE_SECONDS = 120


class Executions:
    """Executions of one service, all in one workspace."""

    def __init__(self, services: Services, stub: ExecutionServiceStub, workspace: Path) -> None:
        self.services = services
        self.stub = stub
        self._layout = layout_pb2.Layout(path=str(workspace))
        self._ids = map("bench-{}".format, itertools.count(1))

    async def start(self, line: str) -> str:
        """Start a command line with /bin/sh; return the execution's id."""
        return await self.start_spec(pb.ExecutionSpec(agent=AgentSettings(command=CommandEngine(line=line))))

    async def start_spec(self, engine: pb.ExecutionSpec) -> str:
        """Start the spec in `engine`, with purpose and layout added; return the execution's id."""
        execution_id = next(self._ids)
        spec = pb.ExecutionSpec(purpose=pb.ExecutionSpec.PURPOSE_AGENT, layout=self._layout)
        spec.MergeFrom(engine)
        await self.stub.StartExecution(pb.StartExecutionRequest(execution_id=execution_id, spec=spec))
        return execution_id

    async def output(self, execution_id: str, *, first: bool = False) -> int:
        """Return the number of bytes of the whole output, or of the first message with output."""
        return (await self.timed_output(execution_id, first=first))[0]

    async def timed_output(self, execution_id: str, *, first: bool = False) -> tuple[int, float]:
        """Return the same as `output`, and the seconds since the first output came."""
        total, began = 0, 0.0
        call = self.stub.WatchEvents(pb.WatchEventsRequest(execution_id=execution_id, follow=True))
        async for message in call:
            total += sum(len(event.output.data) for event in message.events)
            began = began or (time.perf_counter() if total else 0.0)
            if message.HasField("end"):
                assert message.end.state == pb.NodeExecution.STATE_SUCCEEDED, message.end
            if first and total:
                call.cancel()
                break
        return total, time.perf_counter() - began

    async def ended(self, execution_id: str) -> pb.NodeExecution:
        """Wait until an execution has ended, and return it."""
        request = pb.WaitExecutionRequest(execution_id=execution_id)
        return (await self.stub.WaitExecution(request, timeout=_PATIENCE_SECONDS)).execution

    async def stop(self, execution_id: str) -> pb.NodeExecution:
        """Stop an execution without grace; return it when it has ended."""
        request = pb.StopExecutionRequest(execution_id=execution_id, grace=Duration())
        await self.stub.StopExecution(request, timeout=_PATIENCE_SECONDS)
        return await self.ended(execution_id)

    async def stop_all(self, ids: Iterable[str]) -> None:
        """Stop many executions at once."""
        await asyncio.gather(*map(self.stop, ids))

    def processes(self, execution_id: str) -> list[int]:
        """Return the pids of a running execution, its runner first."""
        runner = RunDirectory(execution_runs(self.services.home) / execution_id).holder()
        assert runner is not None, f"{execution_id} has no runner"
        return with_descendants([runner])


@asynccontextmanager
async def executions(root: Path, **environment: str) -> AsyncIterator[Executions]:
    """Run the service inside the block."""
    workspace = root / "workspace"
    workspace.mkdir()
    services = Services(root, BOATYARD_EXECUTION_MAX_EXECUTIONS=str(_AT_ONCE), **environment)
    async with running(services, "execution") as (channel,):
        yield Executions(services, ExecutionServiceStub(channel), workspace)
