import json

import pytest
from boatyard.agent.v1 import ask_pb2, model_pb2
from boatyard.execution.v1 import event_pb2
from boatyard.gateway.v1 import job_pb2, output_pb2, runtime_pb2
from boatyard.git.v1.git_pb2 import ChangedFile
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

from services.cli import shapes


def moment(seconds: int) -> Timestamp:
    return Timestamp(seconds=seconds)


def finished_job() -> job_pb2.Job:
    return job_pb2.Job(
        job_id="job-1",
        state=job_pb2.Job.STATE_FAILED,
        reason="VERIFY_FAILED",
        message="the check did not pass",
        execution_ids=["exec-1", "exec-2"],
        create_time=moment(100),
        end_time=moment(103),
        output=output_pb2.Output(
            branch="boatyard/job-1",
            commit_id="c" * 40,
            files_changed=[
                output_pb2.FileChange(path="a.txt", change=ChangedFile.CHANGE_MODIFIED),
                output_pb2.FileChange(path="�", raw_path=b"\xff"),
            ],
            total_files_changed=2,
            verification=output_pb2.Verification(execution_id="exec-v", passed=False, exit_code=3),
        ),
    )


def filled(kind: type[Message], seconds: int = 7) -> Message:
    """Return a message of which every field says something, whatever it holds."""
    if kind is Timestamp:
        return moment(seconds)
    message = kind()
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            continue
        each = _SAMPLES.get(field.type)
        if field.message_type is not None:
            each = filled(GetMessageClass(field.message_type))
        if field.is_repeated:
            getattr(message, field.name).append(each)
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(each)
        else:
            setattr(message, field.name, each)
    return message


_TEXTS = (FieldDescriptor.TYPE_STRING, "text"), (FieldDescriptor.TYPE_BYTES, b"\xff")
_NUMBERS = [
    (kind, 1)
    for kind in (
        FieldDescriptor.TYPE_INT32,
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_UINT32,
        FieldDescriptor.TYPE_UINT64,
        FieldDescriptor.TYPE_DOUBLE,
        FieldDescriptor.TYPE_BOOL,
        FieldDescriptor.TYPE_ENUM,
    )
]
_SAMPLES = dict([*_TEXTS, *_NUMBERS])
KINDS = {field.name: field for field in event_pb2.Event.DESCRIPTOR.oneofs_by_name["kind"].fields}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_event_is_an_object_of_json(kind: str) -> None:
    body = filled(GetMessageClass(KINDS[kind].message_type))
    event = event_pb2.Event(sequence=3, time=moment(100), **{kind: body})
    assert json.loads(json.dumps(shapes.event(event)))["kind"] == kind


def test_what_a_request_asks_for_is_told_with_its_ways() -> None:
    way = ask_pb2.ModelGate(provider="one", key=1, model="m", open_time=moment(9))
    asked = ask_pb2.Reservation(wire=model_pb2.MODEL_WIRE_CHAT, provider="one", input_tokens=7, ways=[way])
    ask = shapes.event(event_pb2.Event(sequence=1, ask=ask_pb2.Ask(ask_id="a", reservation=asked)))
    assert ask["reservation"]["wire"] == "CHAT"
    assert ask["reservation"]["input_tokens"] == 7
    told = [{"provider": "one", "key": 1, "model": "m", "open_time": "1970-01-01T00:00:09Z"}]
    assert ask["reservation"]["ways"] == told
    ended = event_pb2.AskEnd(ask_id="a", gates=[way])
    assert shapes.event(event_pb2.Event(sequence=2, ask_end=ended))["gates"] == told


def test_a_result_has_the_words_that_scripts_rely_on() -> None:
    assert shapes.result(finished_job()) == {
        "kind": "result",
        "job_id": "job-1",
        "execution_id": "exec-2",
        "state": "FAILED",
        "reason": "VERIFY_FAILED",
        "branch": "boatyard/job-1",
        "commit": "c" * 40,
        "files_changed": ["a.txt", "\udcff"],
        "caveats": [],
        "incomplete": False,
        "artifacts": [],
        "total_artifacts": 0,
        "omitted_artifacts": [],
        "total_omitted_artifacts": 0,
        "tests_run": True,
        "tests_passed": False,
        "tokens_used": None,
        "cost_usd": None,
        "claimed_tokens": None,
        "claimed_cost_usd": None,
        "duration_ms": 3000,
    }


def test_an_execution_is_shown_with_its_job() -> None:
    shape = shapes.execution(
        runtime_pb2.Execution(
            execution_id="exec-1",
            job_id="job-1",
            state=runtime_pb2.Execution.STATE_SUCCEEDED,
            job_state=job_pb2.Job.STATE_FAILED,
            job_reason="PUSH_REJECTED",
            workspace_id="ws-1",
            branch="work",
        )
    )
    assert (shape["state"], shape["job_state"], shape["job_reason"]) == ("SUCCEEDED", "FAILED", "PUSH_REJECTED")
    assert (shape["workspace_id"], shape["branch"], shape["template_id"]) == ("ws-1", "work", None)


def test_what_is_not_known_is_null() -> None:
    result = shapes.result(job_pb2.Job(job_id="job-1", state=job_pb2.Job.STATE_CANCELLED))

    unknown = {key for key, value in result.items() if value is None}
    assert unknown == {
        *("execution_id", "reason", "branch", "commit", "tests_passed", "tokens_used", "cost_usd", "duration_ms"),
        *("claimed_tokens", "claimed_cost_usd"),
    }
    assert (result["tests_run"], result["files_changed"]) == (False, [])


def test_nothing_spent_is_not_unknown() -> None:
    output = output_pb2.Output(tokens_used=0, cost_usd=0.0)

    result = shapes.result(job_pb2.Job(output=output))
    assert (result["tokens_used"], result["cost_usd"]) == (0, 0.0)


def test_every_shape_is_a_line_of_ascii() -> None:
    line = shapes.line(shapes.job(finished_job()))

    assert line.isascii()
    assert "\n" not in line
    assert json.loads(line)["files_changed"] == ["a.txt", "\udcff"]


@pytest.mark.parametrize(
    ("data", "expected"), [("grüße\n".encode(), {"data": "grüße\n"}), (b"\xff\0", {"data_base64": "/wA="})]
)
def test_output_is_text_where_it_can_be(data: bytes, expected: dict[str, str]) -> None:
    event = event_pb2.Event(
        sequence=7, time=moment(0), output=event_pb2.OutputChunk(stream=event_pb2.OutputChunk.STREAM_STDERR, data=data)
    )

    assert shapes.event(event) == {
        "sequence": 7,
        "time": "1970-01-01T00:00:00Z",
        "kind": "output",
        "stream": "stderr",
        **expected,
    }


def test_every_kind_of_event_keeps_all_that_it_says() -> None:
    for kind in event_pb2.Event.DESCRIPTOR.oneofs_by_name["kind"].fields:
        event = event_pb2.Event(sequence=1)
        getattr(event, kind.name).SetInParent()
        shape = shapes.event(event)

        assert shape["kind"] == kind.name
        expected = {field.name for field in kind.message_type.fields}
        assert expected <= set(shape), kind.name
        assert json.loads(json.dumps(shape)) == shape, "it is a line of JSON"


def test_an_event_of_a_later_version_is_not_lost() -> None:
    assert shapes.event(event_pb2.Event(sequence=3))["kind"] == "unknown"


def test_a_state_of_a_later_version_has_a_name() -> None:
    assert shapes.job_state(job_pb2.Job(state=99)) == "UNKNOWN_99"
