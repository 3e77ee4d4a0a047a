"""The calls to the workspace service."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

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
        attempt: int = 0,
    ) -> Layout:
        """Make a workspace from a base, or an empty one, and write `files` (contents by path) into it.

        One for the agents of an `attempt` has a HOME: the first a new one, the others that of the attempt before if it
        is there, and is no more than half of what the agent may take of the disk: it may be why that one has failed.
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
            home=wire.home_to_proto(attempt),
            max_home_bytes=(spec.agent.disk_bytes or 0) // 2,
        )
        made = (await self._calls.call(self._stub.CreateWorkspace, request, LONG_SECONDS)).workspace
        return replace(
            wire.layout_from_proto(made.layout),
            home=made.home_path.encode(),
            home_is_kept=bool(made.home_workspace_id),
        )

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
