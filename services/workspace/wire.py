"""Converts the contract's messages to this service's values and back. Requests have been held to the rules by then."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from boatyard.workspace.v1 import layout_pb2
from boatyard.workspace.v1 import workspace_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

from services.common.db.paging import Page
from services.common.text import lossy, path_from_text, path_to_text
from services.workspace.model import (
    File,
    Filter,
    Labels,
    Layout,
    NewWorkspace,
    State,
    Visibility,
    WorkspaceView,
)
from services.workspace.usage import Usage

_FILES_BYTES: Final = 3 << 20
_LABEL_IDS = ("project_id", "job_id", "worker_id", "work_item_id", "repository_id")

_STATES = {
    State.ACTIVE: pb.Workspace.STATE_ACTIVE,
    State.COMPLETED: pb.Workspace.STATE_COMPLETED,
    State.ERROR: pb.Workspace.STATE_ERROR,
    State.CLEANING: pb.Workspace.STATE_CLEANING,
}
_VISIBILITIES = {pb.VISIBILITY_SANDBOXES: Visibility.SANDBOXES, pb.VISIBILITY_HOST: Visibility.HOST}
_STATES_BACK = {number: state for state, number in _STATES.items()}


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
    return NewWorkspace(
        workspace_id=request.workspace_id,
        base_layers=tuple(map(path_from_text, request.base_layers)),
        pins_path=path_from_text(request.pins_path) if request.pins_path else None,
        visibility=_VISIBILITIES.get(request.visibility, Visibility.SANDBOXES),
        files=tuple(File(path_from_text(file.path), file.content) for file in request.files),
        labels=Labels(
            **{name: getattr(request.labels, name) for name in _LABEL_IDS}, branch=request.labels.branch.encode()
        ),
    )


def new_state_from_proto(request: pb.UpdateWorkspaceStateRequest) -> tuple[str, State, timedelta | None]:
    """Read a workspace's new state, and how long to keep it."""
    keep_for = request.keep_for.ToTimedelta() if request.HasField("keep_for") else None
    return request.workspace_id, _STATES_BACK[request.state], keep_for


def filter_from_proto(request: pb.ListWorkspacesRequest) -> tuple[Filter, Page]:
    """Read which workspaces to list. Raises Invalid when the page's token is not for them."""
    filters = {name: getattr(request, name) for name in ("project_id", "job_id", "worker_id")}
    page = Page.parse(request.page_size, request.page_token, {**filters, "states": sorted(set(request.states))})
    return Filter(states=frozenset(_STATES_BACK[number] for number in request.states), **filters), page


def usage_page_from_proto(request: pb.ListWorkspaceUsageRequest) -> Page:
    """Read the requested page. Raises Invalid."""
    return Page.parse(request.page_size, request.page_token)


def workspace_to_proto(seen: WorkspaceView) -> pb.Workspace:
    """Write a workspace."""
    value = seen.workspace
    return pb.Workspace(
        workspace_id=value.workspace_id,
        state=_STATES[value.state],
        layout=_layout(seen.layout),
        driver=value.driver,
        labels=_labels(value.labels),
        create_time=_timestamp(value.create_time),
        update_time=_timestamp(value.update_time),
        expire_time=None if value.expire_time is None else _timestamp(value.expire_time),
        held_by=seen.held_by,
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


def _labels(value: Labels) -> pb.WorkspaceLabels:
    return pb.WorkspaceLabels(**{name: getattr(value, name) for name in _LABEL_IDS}, branch=lossy(value.branch))


def _timestamp(value: datetime) -> Timestamp:
    result = Timestamp()
    result.FromDatetime(value.astimezone(UTC))
    return result
