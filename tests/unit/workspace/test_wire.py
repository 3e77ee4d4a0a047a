from datetime import timedelta

import pytest
from boatyard.workspace.v1 import workspace_pb2 as pb
from google.protobuf.duration_pb2 import Duration

from services.common.errors import Invalid
from services.workspace import wire
from services.workspace.model import State


def test_every_state_of_the_contract_has_its_own_word() -> None:
    names = {value.name.removeprefix("STATE_") for value in pb.Workspace.State.DESCRIPTOR.values} - {"UNSPECIFIED"}

    assert names == {state.value for state in State}


def test_a_request_that_is_wrong_in_every_field_hears_of_each() -> None:
    request = pb.CreateWorkspaceRequest(
        workspace_id="../etc",
        base_layers=[b"relative"],
        pins_path=b"relative",
        purpose=pb.Purpose(project_id="P", job_id="-j", worker_id="a b", branch=b"x" * 256),
    )
    with pytest.raises(Invalid) as raised:
        wire.new_workspace_from_proto(request)

    assert {field for field, _ in raised.value.violations} == {
        *("workspace_id", "base_layers[0]", "pins_path", "purpose.project_id"),
        *("purpose.job_id", "purpose.worker_id", "purpose.branch"),
    }


def test_a_base_path_need_not_be_utf_8() -> None:
    request = wire.new_workspace_from_proto(pb.CreateWorkspaceRequest(workspace_id="w1", base_layers=[b"/b\xffse"]))

    assert [bytes(layer) for layer in request.base_layers] == [b"/b\xffse"]


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (
            pb.ListWorkspacesRequest(page_size=-1, page_token="nonsense", states=[0]),
            {"page_size", "page_token", "states"},
        ),
        (pb.ListWorkspacesRequest(job_id="UPPER"), {"job_id"}),
    ],
)
def test_a_list_that_cannot_be_made(request_: pb.ListWorkspacesRequest, fields: set[str]) -> None:
    with pytest.raises(Invalid) as raised:
        wire.filter_from_proto(request_)

    assert {field for field, _ in raised.value.violations} == fields


@pytest.mark.parametrize("state", [pb.Workspace.STATE_ACTIVE, pb.Workspace.STATE_CLEANING, 0, 99])
def test_only_what_became_of_the_work_can_be_recorded(state: int) -> None:
    with pytest.raises(Invalid) as raised:
        wire.new_state_from_proto(pb.UpdateWorkspaceStateRequest(state=state))

    assert {field for field, _ in raised.value.violations} == {"workspace_id", "state"}


@pytest.mark.parametrize("age", [None, Duration(seconds=-1), Duration(nanos=-1), Duration(seconds=1 << 60)])
def test_an_age_that_is_none(age: Duration | None) -> None:
    with pytest.raises(Invalid):
        wire.max_age_from_proto(pb.SweepWorkspacesRequest(max_age=age))


def test_an_age_of_nothing_is_an_age() -> None:
    assert wire.max_age_from_proto(pb.SweepWorkspacesRequest(max_age=Duration())) == timedelta(0)
