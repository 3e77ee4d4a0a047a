"""The RPCs: from the wire to the manager and back."""

from typing import Any

from boatyard.workspace.v1 import workspace_pb2 as pb
from boatyard.workspace.v1.workspace_pb2_grpc import WorkspaceServiceServicer
from grpc import aio

from services.workspace import wire
from services.workspace.manager import WorkspaceManager

Context = aio.ServicerContext[Any, Any]


class WorkspaceServicer(WorkspaceServiceServicer):
    """Serves boatyard.workspace.v1.WorkspaceService."""

    def __init__(self, workspaces: WorkspaceManager) -> None:
        self._workspaces = workspaces

    async def CreateWorkspace(self, request: pb.CreateWorkspaceRequest, context: Context) -> pb.CreateWorkspaceResponse:
        workspace = await self._workspaces.create(wire.new_workspace_from_proto(request))
        return pb.CreateWorkspaceResponse(workspace=wire.workspace_to_proto(workspace))

    async def GetWorkspace(self, request: pb.GetWorkspaceRequest, context: Context) -> pb.GetWorkspaceResponse:
        workspace = await self._workspaces.get(request.workspace_id)
        return pb.GetWorkspaceResponse(workspace=wire.workspace_to_proto(workspace))

    async def ListWorkspaces(self, request: pb.ListWorkspacesRequest, context: Context) -> pb.ListWorkspacesResponse:
        page, token = await self._workspaces.page(*wire.filter_from_proto(request))
        return pb.ListWorkspacesResponse(workspaces=map(wire.workspace_to_proto, page), next_page_token=token)

    async def UpdateWorkspaceState(
        self, request: pb.UpdateWorkspaceStateRequest, context: Context
    ) -> pb.UpdateWorkspaceStateResponse:
        workspace = await self._workspaces.set_state(*wire.new_state_from_proto(request))
        return pb.UpdateWorkspaceStateResponse(workspace=wire.workspace_to_proto(workspace))

    async def DeleteWorkspace(self, request: pb.DeleteWorkspaceRequest, context: Context) -> pb.DeleteWorkspaceResponse:
        await self._workspaces.delete(request.workspace_id)
        return pb.DeleteWorkspaceResponse()

    async def SweepWorkspaces(self, request: pb.SweepWorkspacesRequest, context: Context) -> pb.SweepWorkspacesResponse:
        return pb.SweepWorkspacesResponse(workspace_ids=await self._workspaces.sweep(*wire.sweep_from_proto(request)))

    async def ListWorkspaceUsage(
        self, request: pb.ListWorkspaceUsageRequest, context: Context
    ) -> pb.ListWorkspaceUsageResponse:
        return wire.usage_to_proto(await self._workspaces.usage(wire.usage_page_from_proto(request)))
