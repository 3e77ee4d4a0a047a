"""Converts the contract's messages to this service's values and back. Reports everything wrong with a request."""

from datetime import timedelta
from pathlib import Path

from boatyard.workspace.v1 import layout_pb2
from boatyard.workspace.v1 import workspace_pb2 as pb
from google.protobuf.duration_pb2 import Duration

from services.common.db.paging import Page
from services.common.errors import Invalid
from services.common.ids import ID_RULE, is_id
from services.common.rpc.mapper import Mapper
from services.common.text import path_to_text
from services.workspace.model import (
    SETTABLE_STATES,
    Filter,
    Layout,
    NewWorkspace,
    State,
    Workspace,
    WorkspaceView,
)
from services.workspace.usage import Usage

Violations = list[tuple[str, str]]

_BRANCH_BYTES = 255
_PATH_BYTES = 4095  # PATH_MAX, less the closing NUL
_LAYERS = 100
_FILES = 1000
_FILES_BYTES = 3 << 20
_PURPOSE_IDS = ("project_id", "job_id", "worker_id", "work_item_id", "repository_id")

_STATES = {pb.Workspace.State.Value(f"STATE_{state}"): state for state in State}

_WORKSPACE = Mapper(
    Workspace,
    pb.Workspace,
    by_hand={"base_layers", "pins_path", "visibility", "files_digest", "layout", "held_by"},
)
_NEW_WORKSPACE = Mapper(NewWorkspace, pb.CreateWorkspaceRequest)


def new_workspace_from_proto(request: pb.CreateWorkspaceRequest) -> NewWorkspace:
    """Read a request. Raises Invalid with all violations."""
    violations = _id_violations("workspace_id", request.workspace_id)
    for index, layer in enumerate(request.base_layers):
        violations += _path_violations(f"base_layers[{index}]", layer)
    if len(request.base_layers) > _LAYERS:
        violations.append(("base_layers", f"must be at most {_LAYERS}"))
    if request.visibility and request.visibility not in pb.Visibility.values():
        violations.append(("visibility", "must be one of the contract"))
    if request.pins_path:
        violations += _path_violations("pins_path", request.pins_path)
    for name in _PURPOSE_IDS:
        if value := getattr(request.purpose, name):
            violations += _id_violations(f"purpose.{name}", value)
    branch = request.purpose.branch.encode()
    if len(branch) > _BRANCH_BYTES:
        violations.append(("purpose.branch", f"must be at most {_BRANCH_BYTES} bytes"))
    violations += _files_violations(request)
    _refuse(violations)
    return _NEW_WORKSPACE.from_proto(request)


def workspace_id_from_proto(value: str) -> str:
    """Read a required id. Raises Invalid."""
    _refuse(_id_violations("workspace_id", value))
    return value


def new_state_from_proto(request: pb.UpdateWorkspaceStateRequest) -> tuple[str, State, timedelta | None]:
    """Read a workspace's new state, and how long to keep it. Raises Invalid with all violations."""
    violations = _id_violations("workspace_id", request.workspace_id)
    state = _STATES.get(request.state)
    if state is None or state not in SETTABLE_STATES:
        raise Invalid([*violations, ("state", "must be COMPLETED or ERROR")])
    _refuse(violations)
    return (
        request.workspace_id,
        state,
        _duration("keep_for", request.keep_for) if request.HasField("keep_for") else None,
    )


def filter_from_proto(request: pb.ListWorkspacesRequest) -> tuple[Filter, Page]:
    """Read which workspaces to list. Raises Invalid with all violations."""
    filters = {name: getattr(request, name) for name in ("project_id", "job_id", "worker_id")}
    violations = [broken for name, value in filters.items() if value for broken in _id_violations(name, value)]
    if any(number not in _STATES for number in request.states):
        violations.append(("states", "must be states of the contract, none of them UNSPECIFIED"))
    page = Page()
    try:
        page = Page.parse(request.page_size, request.page_token, {**filters, "states": sorted(set(request.states))})
    except Invalid as error:
        violations += error.violations
    _refuse(violations)
    return Filter(states=frozenset(_STATES[number] for number in request.states), **filters), page


def max_age_from_proto(request: pb.SweepWorkspacesRequest) -> timedelta:
    """Read a required age. Raises Invalid."""
    if not request.HasField("max_age"):
        raise Invalid([("max_age", "is required; 0 s sweeps all that are not ACTIVE")])
    return _duration("max_age", request.max_age)


def usage_page_from_proto(request: pb.UsageOfWorkspacesRequest) -> Page:
    """Read the requested page. Raises Invalid."""
    return Page.parse(request.page_size, request.page_token)


def workspace_to_proto(seen: WorkspaceView) -> pb.Workspace:
    """Write a workspace."""
    return _WORKSPACE.to_proto(seen.workspace, layout=_layout(seen.layout), held_by=seen.held_by)


def usage_to_proto(value: Usage) -> pb.UsageOfWorkspacesResponse:
    """Write the disk use of workspaces."""
    return pb.UsageOfWorkspacesResponse(
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


def _duration(field: str, value: Duration) -> timedelta:
    # Durations reach from -10,000 to 10,000 years; no workspace is older than that, and datetimes end there.
    if not 0 <= value.seconds <= 100 * 366 * 86400 or not 0 <= value.nanos < 1_000_000_000:
        raise Invalid([(field, "must be from 0 s to 100 years")])
    return timedelta(seconds=value.seconds, microseconds=value.nanos // 1000)


def _id_violations(field: str, value: str) -> Violations:
    if not value:
        return [(field, "is required")]
    return [] if is_id(value) else [(field, f"must be {ID_RULE}")]


def _path_violations(field: str, path: str) -> Violations:
    if not path.startswith("/"):
        return [(field, "must be absolute")]
    if "\0" in path or len(path.encode()) > _PATH_BYTES:
        return [(field, f"must be at most {_PATH_BYTES} bytes, and none of them NUL")]
    return []


def _files_violations(request: pb.CreateWorkspaceRequest) -> Violations:
    violations: Violations = []
    if len(request.files) > _FILES or sum(len(file.content) for file in request.files) > _FILES_BYTES:
        violations.append(("files", f"must be at most {_FILES}, and {_FILES_BYTES >> 20} MiB together"))
    paths = [file.path for file in request.files]
    directories = {path[:end] for path in paths for end, character in enumerate(path) if character == "/"}
    for index, path in enumerate(paths):
        parts = path.split("/")
        if not {"", ".", ".."}.isdisjoint(parts) or "\0" in path or len(path.encode()) > _PATH_BYTES:
            violations.append((f"files[{index}].path", "must be a path below the workspace, without '.' and '..'"))
    if len(set(paths)) < len(paths) or not directories.isdisjoint(paths):
        violations.append(("files", "must each have a path of its own, which is no other's directory"))
    return violations


def _refuse(violations: Violations) -> None:
    if violations:
        raise Invalid(violations)
