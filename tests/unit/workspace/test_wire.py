from datetime import UTC, datetime
from pathlib import Path

import pytest
from boatyard.workspace.v1 import workspace_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from services.common.errors import Invalid
from services.common.rpc.rules import Rules
from services.workspace import wire
from services.workspace.model import Labels, Layout, State, Visibility, Workspace, WorkspaceView

RULES = Rules(wire.CHECKS)
NOW = datetime(2026, 11, 29, tzinfo=UTC)


def wrong_fields(request: Message) -> set[str]:
    return {field for field, _ in RULES.violations(request)}


def test_every_state_of_the_contract_has_its_own_word() -> None:
    names = {value.name.removeprefix("STATE_") for value in pb.Workspace.State.DESCRIPTOR.values} - {"UNSPECIFIED"}

    assert names == {state.value for state in State}


def test_a_request_that_is_wrong_in_every_field_hears_of_each() -> None:
    request = pb.CreateWorkspaceRequest(
        workspace_id="../etc",
        base_layers=["relative"],
        pins_path="relative",
        labels=pb.WorkspaceLabels(project_id="P", job_id="-j", worker_id="a b", branch="x" * 256),
    )
    assert wrong_fields(request) == {
        *("workspace_id", "base_layers[0]", "pins_path", "labels.project_id"),
        *("labels.job_id", "labels.worker_id", "labels.branch"),
    }


def test_paths_and_branches_are_text() -> None:
    message = pb.CreateWorkspaceRequest(
        workspace_id="w1",
        base_layers=["/b\u00e4se"],
        labels=pb.WorkspaceLabels(branch="\u00fc"),
        files=[pb.File(path="d/\u00e9")],
    )
    request = wire.new_workspace_from_proto(message)

    assert [bytes(layer) for layer in request.base_layers] == ["/b\u00e4se".encode()]
    assert bytes(request.files[0].path) == "d/\u00e9".encode()
    assert request.labels.branch == "\u00fc".encode()


def test_the_branch_of_a_workspace_made_before_branches_were_text_is_shown() -> None:
    workspace = Workspace("w1", State.ACTIVE, "copy", (), None, Visibility.HOST, Labels(branch=b"b\xff"), NOW, NOW)
    message = wire.workspace_to_proto(WorkspaceView(workspace, Layout(Path("/srv/\u00e4")), ""))

    assert (message.labels.branch, message.layout.path) == ("b\ufffd", "/srv/\u00e4")


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (
            pb.ListWorkspacesRequest(page_size=-1, states=[1, 0]),
            {"page_size", "states[1]"},
        ),
        (pb.ListWorkspacesRequest(job_id="UPPER"), {"job_id"}),
    ],
)
def test_a_list_that_cannot_be_made(request_: pb.ListWorkspacesRequest, fields: set[str]) -> None:
    assert wrong_fields(request_) == fields


def test_a_page_token_of_another_list_is_refused() -> None:
    with pytest.raises(Invalid) as raised:
        wire.filter_from_proto(pb.ListWorkspacesRequest(page_token="nonsense"))

    assert {field for field, _ in raised.value.violations} == {"page_token"}


@pytest.mark.parametrize("state", [pb.Workspace.STATE_ACTIVE, pb.Workspace.STATE_CLEANING, 0, 99])
def test_only_what_became_of_the_work_can_be_recorded(state: int) -> None:
    assert wrong_fields(pb.UpdateWorkspaceStateRequest(state=state)) == {"workspace_id", "state"}


@pytest.mark.parametrize("age", [None, Duration(seconds=-1), Duration(nanos=-1), Duration(seconds=1 << 60)])
def test_an_age_that_is_none(age: Duration | None) -> None:
    assert wrong_fields(pb.SweepWorkspacesRequest(max_age=age)) == {"max_age"}


def test_an_age_of_nothing_is_an_age() -> None:
    assert wrong_fields(pb.SweepWorkspacesRequest(max_age=Duration())) == set()


def test_files_must_not_be_in_one_anothers_way() -> None:
    files = [pb.File(path="a", content=b"x" * (3 << 20)), pb.File(path="a/b"), pb.File(path="../c", content=b"x")]

    assert [
        (field, text) for field, text in RULES.violations(pb.CreateWorkspaceRequest(workspace_id="w", files=files))
    ] == [
        ("files[2].path", "must be a relative path, without empty parts, '.', '..' and control characters"),
        ("files", "must be at most 3 MiB together"),
        ("files", "must each have a path of its own, which is no other's directory"),
    ]
