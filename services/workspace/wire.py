"""Converts the contract's messages to this service's values and back. Requests have been held to the rules by then."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

from boatyard.workspace.v1 import layout_pb2
from boatyard.workspace.v1 import workspace_pb2 as pb

from services.common.db.paging import Page
from services.common.rpc.mapper import Mapper
from services.common.text import path_to_text
from services.workspace.model import (
    Filter,
    Layout,
    NewWorkspace,
    State,
    Workspace,
    WorkspaceView,
)
from services.workspace.usage import Usage

_FILES_BYTES: Final = 3 << 20
_NAMED: Final = ("project_id", "job_id", "worker_id", "work_item_id")
_STATES: Final = {pb.Workspace.State.Value(f"STATE_{state}"): state for state in State}

_NEW_WORKSPACE: Final = Mapper(NewWorkspace, pb.CreateWorkspaceRequest)
_FILTER: Final = Mapper(Filter, pb.ListWorkspacesRequest, by_hand={"page_size", "page_token"})
_WORKSPACE: Final = Mapper(
    Workspace,
    pb.Workspace,
    by_hand={"base_layers", "pins_path", "visibility", "files_digest", "layout", "held_by", "path", "home_path"},
)


def check_files(request: pb.CreateWorkspaceRequest) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the files of a workspace together."""
    if sum(len(file.content) for file in request.files) > _FILES_BYTES:
        yield "files", f"must be at most {_FILES_BYTES >> 20} MiB together"
    paths = [file.path for file in request.files]
    directories = {path[:end] for path in paths for end, character in enumerate(path) if character == "/"}
    if len(set(paths)) < len(paths) or not directories.isdisjoint(paths):
        yield "files", "must each have a path of its own, which is no other's directory"


CHECKS: Final = {pb.CreateWorkspaceRequest.DESCRIPTOR.full_name: check_files}
"""Rules for messages as a whole, by their full names."""


def new_workspace_from_proto(request: pb.CreateWorkspaceRequest) -> NewWorkspace:
    """Read a request."""
    return _NEW_WORKSPACE.from_proto(request)


def new_state_from_proto(request: pb.UpdateWorkspaceStateRequest) -> tuple[str, State, timedelta | None]:
    """Read a workspace's new state, and how long to keep it."""
    keep_for = request.keep_for.ToTimedelta() if request.HasField("keep_for") else None
    return request.workspace_id, _STATES[request.state], keep_for


def filter_from_proto(request: pb.ListWorkspacesRequest) -> tuple[Filter, Page]:
    """Read which workspaces to list. Raises Invalid when the page's token is not for them."""
    filters = _FILTER.from_proto(request)
    bound = {name: getattr(filters, name) for name in _NAMED}
    return filters, Page.parse(request.page_size, request.page_token, {**bound, "states": sorted(set(request.states))})


def sweep_from_proto(request: pb.SweepWorkspacesRequest) -> tuple[timedelta, str]:
    """Read how old workspaces must be that are to be removed, and of which project (empty: of any)."""
    return request.max_age.ToTimedelta(), request.project_id


def usage_page_from_proto(request: pb.ListWorkspaceUsageRequest) -> Page:
    """Read the requested page. Raises Invalid."""
    return Page.parse(request.page_size, request.page_token)


def workspace_to_proto(seen: WorkspaceView) -> pb.Workspace:
    """Write a workspace."""
    return _WORKSPACE.to_proto(
        seen.workspace,
        layout=_layout(seen.layout),
        held_by=seen.held_by,
        path=_path(seen.layout.files),
        home_path=_path(seen.home),
    )


def usage_to_proto(value: Usage) -> pb.ListWorkspaceUsageResponse:
    """Write the disk use of workspaces."""
    return pb.ListWorkspaceUsageResponse(
        workspaces=[
            pb.WorkspaceUsage(workspace_id=found.workspace_id, bytes=use.bytes, inodes=use.inodes)
            for found, use in value.page
        ],
        next_page_token=value.next_page_token,
        total_bytes=value.total.bytes,
        total_inodes=value.total.inodes,
        free_bytes=value.disk.free_bytes,
        free_inodes=value.disk.free_inodes,
        driver=value.choice.chosen.name,
        drivers=[
            pb.DriverStatus(name=name, complaint=complaint or "") for name, complaint in value.choice.complaints.items()
        ],
        shared_uid_reason=value.choice.shared_uid,
    )


def _layout(value: Layout) -> layout_pb2.Layout:
    if value.path is not None:
        return layout_pb2.Layout(path=path_to_text(value.path))
    return layout_pb2.Layout(
        layers=layout_pb2.Layers(
            lowers=[path_to_text(path) for path in value.lowers],
            upper=_path(value.upper),
            work=_path(value.work),
            mounted_path=_path(value.mounted),
        )
    )


def _path(value: Path | None) -> str:
    return "" if value is None else path_to_text(value)
