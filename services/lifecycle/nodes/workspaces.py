"""The calls to the workspace service."""

from collections.abc import Mapping
from contextlib import suppress

import grpc
from boatyard.workspace.v1 import workspace_pb2 as workspace_pb
from boatyard.workspace.v1 import workspace_pb2_grpc as workspace_rpc

from services.common.errors import NotFound
from services.common.rpc.times import duration_to_proto
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.node_work import Base, Layout
from services.lifecycle.nodes import wire
from services.lifecycle.nodes.calls import LONG_SECONDS, JobCalls


class WorkspaceClient:
    """The workspace service, for one job."""

    def __init__(self, channel: grpc.aio.Channel, calls: JobCalls) -> None:
        self._stub = workspace_rpc.WorkspaceServiceStub(channel)
        self._calls = calls

    async def create(
        self,
        workspace_id: str,
        base: Base | None,
        spec: JobSpec,
        files: Mapping[str, bytes] | None = None,
        *,
        is_empty: bool = False,
    ) -> Layout:
        """Make a workspace from a base, or an empty one, and write `files` (contents by path) into it.

        With `is_empty` the base is only kept from being removed: the workspace has nothing of it, no `.git` either.
        """
        given = (files or {}).items()
        request = workspace_pb.CreateWorkspaceRequest(
            workspace_id=workspace_id,
            base_layers=() if base is None or is_empty else wire.texts_to_proto("base_layers", base.layers),
            pins_path="" if base is None else wire.text_to_proto("pins_path", base.pins_path),
            labels=wire.workspace_labels_to_proto(spec),
            visibility=wire.visibility_to_proto(spec.agent.tier),
            files=[workspace_pb.File(path=path, content=content) for path, content in given],
        )
        answer = await self._calls.call(self._stub.CreateWorkspace, request, LONG_SECONDS)
        return wire.layout_from_proto(answer.workspace.layout)

    async def close(self, workspace_id: str, *, failed: bool, keep_seconds: float) -> None:
        """Record that the work in a workspace has ended, how, and how long to keep it; it may be gone already."""
        states = workspace_pb.Workspace
        state = states.STATE_ERROR if failed else states.STATE_COMPLETED
        request = workspace_pb.UpdateWorkspaceStateRequest(
            workspace_id=workspace_id, state=state, keep_for=duration_to_proto(keep_seconds)
        )
        with suppress(NotFound):
            await self._calls.call(self._stub.UpdateWorkspaceState, request)

    async def delete(self, workspace_id: str) -> None:
        """Remove a workspace; one that is gone is a success."""
        request = workspace_pb.DeleteWorkspaceRequest(workspace_id=workspace_id)
        await self._calls.call(self._stub.DeleteWorkspace, request, LONG_SECONDS)
