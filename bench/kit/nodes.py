"""Node services that do nothing and answer at once: with them, only what calls them is measured."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from boatyard.execution.v1 import execution_pb2 as execution
from boatyard.execution.v1 import execution_pb2_grpc as execution_rpc
from boatyard.git.v1 import git_pb2 as git
from boatyard.git.v1 import git_pb2_grpc as git_rpc
from boatyard.workspace.v1 import layout_pb2 as layout
from boatyard.workspace.v1 import workspace_pb2 as workspace
from boatyard.workspace.v1 import workspace_pb2_grpc as workspace_rpc

from services.lifecycle.nodes import Nodes

_COMMIT_ID = "0" * 40


class NoGit(git_rpc.GitServiceServicer):
    """A git service that finds no change in anything."""

    async def CheckRemote(self, request: git.CheckRemoteRequest, context: Any) -> git.CheckRemoteResponse:
        return git.CheckRemoteResponse()

    async def PrepareEmptyBase(
        self, request: git.PrepareEmptyBaseRequest, context: Any
    ) -> git.PrepareEmptyBaseResponse:
        base = git.Base(commit_id=_COMMIT_ID, layers=["/nowhere"], pins_path="/nowhere", head_commit_id=_COMMIT_ID)
        return git.PrepareEmptyBaseResponse(base=base)

    async def TakeResult(self, request: git.TakeResultRequest, context: Any) -> git.TakeResultResponse:
        return git.TakeResultResponse(commit_id=_COMMIT_ID)


class NoWorkspaces(workspace_rpc.WorkspaceServiceServicer):
    """A workspace service that makes and removes no directories."""

    async def CreateWorkspace(
        self, request: workspace.CreateWorkspaceRequest, context: Any
    ) -> workspace.CreateWorkspaceResponse:
        made = workspace.Workspace(workspace_id=request.workspace_id, layout=layout.Layout(path="/nowhere"))
        return workspace.CreateWorkspaceResponse(workspace=made)

    async def DeleteWorkspace(
        self, request: workspace.DeleteWorkspaceRequest, context: Any
    ) -> workspace.DeleteWorkspaceResponse:
        return workspace.DeleteWorkspaceResponse()


class NoOpAgents(execution_rpc.ExecutionServiceServicer):
    """An execution service that runs no program: every execution succeeds at once. `on_start` gets the job's id."""

    def __init__(self) -> None:
        self.on_start: Callable[[str], None] = lambda _: None

    async def DescribeNode(
        self, request: execution.DescribeNodeRequest, context: Any
    ) -> execution.DescribeNodeResponse:
        return execution.DescribeNodeResponse(reserves_model_use=True)

    async def StartExecution(
        self, request: execution.StartExecutionRequest, context: Any
    ) -> execution.StartExecutionResponse:
        self.on_start(request.spec.job_id)
        return execution.StartExecutionResponse(execution=_ended(request.execution_id))

    async def WaitExecution(
        self, request: execution.WaitExecutionRequest, context: Any
    ) -> execution.WaitExecutionResponse:
        return execution.WaitExecutionResponse(execution=_ended(request.execution_id))

    async def WatchEvents(
        self, request: execution.WatchEventsRequest, context: Any
    ) -> AsyncIterator[execution.WatchEventsResponse]:
        if request.follow:
            yield execution.WatchEventsResponse(end=_ended(request.execution_id), next_sequence=1)


@asynccontextmanager
async def idle_nodes(agents: NoOpAgents) -> AsyncIterator[Nodes]:
    """Serve them in this process; yield channels to them."""
    server = grpc.aio.server()
    git_rpc.add_GitServiceServicer_to_server(NoGit(), server)  # type: ignore[abstract] # a job calls no more
    workspace_rpc.add_WorkspaceServiceServicer_to_server(NoWorkspaces(), server)  # type: ignore[abstract] # a job calls no more
    execution_rpc.add_ExecutionServiceServicer_to_server(agents, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Nodes(channel, channel, channel)
    finally:
        await server.stop(grace=0)
        await asyncio.sleep(0)


def _ended(execution_id: str) -> execution.NodeExecution:
    return execution.NodeExecution(
        execution_id=execution_id, state=execution.NodeExecution.STATE_SUCCEEDED, exit_code=0, last_sequence=1
    )
