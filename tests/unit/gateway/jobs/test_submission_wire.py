"""Which input, times and labels a request may give a job."""

from datetime import UTC, datetime, timedelta

import pytest
from boatyard.gateway.v1 import job_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from services.common.errors import Invalid
from services.common.rpc.rules import Rules
from services.gateway.jobs import submission_wire
from services.gateway.jobs.kinds import load_kinds
from services.gateway.jobs.submission import JobSubmission
from services.gateway.wire.policy import CHECKS
from services.lifecycle.model.job_context import FileContent

RULES = Rules({**submission_wire.checks(load_kinds()), **CHECKS})


def read(**fields: object) -> JobSubmission:
    spec = pb.JobSpec(**{"prompt": "x", **fields})  # type: ignore[arg-type]
    RULES.enforce(pb.CreateJobRequest(spec=spec))
    return submission_wire.submission_from_proto(spec)


def files(*names: str, content: bytes = b"x") -> list[pb.InputFile]:
    return [pb.InputFile(name=name, content=content) for name in names]


def test_files_data_and_times_are_read() -> None:
    submission = read(files=files("a/b c.csv", "ä"), data='{"a": [1]}', delay=Duration(seconds=5))
    assert submission.files == (FileContent("a/b c.csv", b"x"), FileContent("ä", b"x"))
    assert (submission.data, submission.delay, submission.not_before) == (b'{"a": [1]}', timedelta(seconds=5), None)
    time = Timestamp(seconds=1_800_000_000, nanos=5000)
    later = read(not_before_time=time)
    assert later.not_before == datetime.fromtimestamp(1_800_000_000, UTC) + timedelta(microseconds=5)


@pytest.mark.parametrize(
    "names",
    [
        [""],
        ["/a"],
        ["a/"],
        ["a//b"],
        ["."],
        ["../a"],
        ["a/./b"],
        ["a\0b"],
        ["a\nb"],
        ["x" * 256],
        ["a", "a/b"],
        ["a", "a"],
    ],
)
def test_a_file_lies_in_a_place_of_its_own(names: list[str]) -> None:
    with pytest.raises(Invalid) as refused:
        read(files=files(*names))
    assert all(field.startswith("spec.files") for field, _ in refused.value.violations)


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("spec.files", {"files": files(*map(str, range(257)))}),
        ("spec.files", {"files": files("a", "b", content=b"x" * ((1 << 20) + 1))}),
        ("spec.data", {"data": "[1]"}),
        ("spec.data", {"data": "{"}),
        ("spec.data", {"data": '{"a": NaN}'}),
        ("spec.data", {"data": '{"a":' * 100_000}),
        ("spec.data", {"data": '{"a": "' + "\u00fc" * (128 << 10) + '"}'}),
        ("spec.delay", {"delay": Duration()}),
        ("spec.delay", {"delay": Duration(seconds=367 * 86400)}),
        ("spec.not_before_time", {"not_before_time": Timestamp(seconds=1 << 40)}),
        ("spec.not_before_time", {"not_before_time": Timestamp(seconds=4_000_000_000)}),
        ('spec.labels[""]', {"labels": {"": "x"}}),
        ('spec.labels["a"]', {"labels": {"a": "x" * 64}}),
        ('spec.labels["a\n"]', {"labels": {"a\n": "x"}}),
        ("spec.labels", {"labels": {str(number): "" for number in range(65)}}),
    ],
)
def test_what_is_too_much_or_malformed_is_named(field: str, fields: dict[str, object]) -> None:
    with pytest.raises(Invalid) as refused:
        read(**fields)
    assert [name for name, _ in refused.value.violations] == [field]


@pytest.mark.parametrize(
    "text",
    [
        '{"b": 12345678901234567890123, "a": 1.10, "a": 2}',
        '{\n  "z": 1e400,\t"y": "\\u00fc \u00fc"}  ',
        '{"x":0.1000000000000000055511151231257827}',
    ],
)
def test_data_is_kept_as_it_was_sent(text: str) -> None:
    """Not parsed and written again, which would change large numbers, the order of keys, and whitespace."""
    assert read(data=text).data == text.encode()
