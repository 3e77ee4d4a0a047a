"""Messages and values: what a mapper converts, and which pairs it refuses."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Generic, Literal, TypeVar

import pytest
from boatyard.agent.v1 import agent_pb2
from boatyard.gateway.v1 import catalog_pb2
from boatyard.git.v1 import git_pb2
from boatyard.metrics.v1 import metrics_pb2
from google.protobuf.message import Message

from services.agent.settings import AgentSettings, AnthropicEngine
from services.agent.wire import AGENT
from services.common.rpc.mapper import Mapper

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


class Change(enum.StrEnum):
    ADDED = "A"
    MODIFIED = "M"
    DELETED = "D"
    RENAMED = "R"
    TYPE = "T"


@dataclass(frozen=True)
class File:
    path: bytes
    change: Change = Change.MODIFIED
    old_path: bytes = b""
    additions: int | None = None
    deletions: int | None = None


@dataclass(frozen=True)
class Project:
    project_id: str
    create_time: datetime
    display_name: str = "unnamed"
    max_running_jobs: int = 0
    default_worker_id: str = ""


@dataclass(frozen=True)
class Sample:
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    value: float = 0.0


Open = TypeVar("Open")


@dataclass(frozen=True)
class Counts(Generic[Open]):
    additions: int | Open


@dataclass(frozen=True)
class Head:
    branch: bytes
    commit_id: str


FILE = Mapper(File, git_pb2.ChangedFile)
PROJECT = Mapper(Project, catalog_pb2.Project, by_hand={"secrets", "floor", "todo_only"})


def test_text_that_is_not_utf8_is_lossy_with_its_bytes_beside_it() -> None:
    message = FILE.to_proto(File(b"caf\xe9", old_path=b"plain"))

    assert (message.path, message.raw_path) == ("caf�", b"caf\xe9")
    assert (message.old_path, message.raw_old_path) == ("plain", b"")
    assert FILE.from_proto(message).path == b"caf\xe9"


def test_lossy_text_is_marked_where_the_message_has_a_mark() -> None:
    head = Mapper(Head, git_pb2.GetCurrentBranchResponse)

    assert head.to_proto(Head(b"caf\xe9", "1")).branch_is_lossy
    assert not head.to_proto(Head("café".encode(), "1")).branch_is_lossy


def test_none_is_a_field_that_is_not_set() -> None:
    message = FILE.to_proto(File(b"a", additions=0))

    assert message.HasField("additions")
    assert not message.HasField("deletions")
    assert FILE.from_proto(message) == File(b"a", additions=0)


def test_a_type_variable_stands_for_what_is_not_set() -> None:
    others = {each.name for each in git_pb2.ChangedFile.DESCRIPTOR.fields} - {"additions"}
    counts: Mapper[Counts[None], git_pb2.ChangedFile] = Mapper(Counts, git_pb2.ChangedFile, by_hand=others)

    assert not counts.to_proto(Counts(None)).HasField("additions")
    assert counts.from_proto(git_pb2.ChangedFile()) == Counts(None)
    assert counts.from_proto(counts.to_proto(Counts(0))) == Counts(0)


def test_times_of_any_zone_are_read_in_utc() -> None:
    there = NOON.astimezone(timezone(timedelta(hours=9)))

    assert PROJECT.from_proto(PROJECT.to_proto(Project("a", there))).create_time == NOON
    assert PROJECT.from_proto(PROJECT.to_proto(Project("a", there))).create_time.tzinfo is UTC


def test_an_unset_field_has_the_default_of_the_value_or_is_an_error() -> None:
    unset = git_pb2.ChangedFile(path="a")

    assert FILE.from_proto(unset).change is Change.MODIFIED
    with pytest.raises(TypeError, match="create_time"):
        PROJECT.from_proto(catalog_pb2.Project(project_id="a"))


def test_given_fields_take_the_place_of_those_that_are_converted() -> None:
    assert PROJECT.to_proto(Project("a", NOON), display_name="other").display_name == "other"
    assert PROJECT.from_proto(catalog_pb2.Project(project_id="a"), create_time=NOON, display_name="b") == Project(
        "a", NOON, "b"
    )


def test_maps_and_numbers() -> None:
    sample = Mapper(Sample, metrics_pb2.MetricSample)
    value = Sample("jobs", {"state": "PENDING"}, 1.5)

    assert sample.from_proto(sample.to_proto(value)) == value


@dataclass(frozen=True)
class Unnamed:
    project_id: str
    create_time: datetime


@dataclass(frozen=True)
class Named(Project):
    nickname: str = ""


@dataclass(frozen=True)
class Numbered(Project):
    display_name: int = 0  # type: ignore[assignment]


@dataclass(frozen=True)
class Missing(Project):
    default_worker_id: str | None = None  # type: ignore[assignment]


class Half(enum.StrEnum):
    ADDED = "A"


@dataclass(frozen=True)
class CommandEngine:
    line: str | None = None


@dataclass(frozen=True)
class OneEngine:
    engine: CommandEngine | None = None
    kind: Literal["mine"] = "mine"


def test_a_oneof_has_a_case_for_each_dataclass() -> None:
    others = {*agent_pb2.AgentSettings.DESCRIPTOR.fields_by_name} - {"command", "anthropic"}
    with pytest.raises(TypeError, match="the cases of engine are not"):
        Mapper(OneEngine, agent_pb2.AgentSettings, by_hand=others)
    two = AgentSettings(engine=AnthropicEngine(max_tokens=3))
    message = AGENT.to_proto(two)
    assert message == agent_pb2.AgentSettings(anthropic={"max_tokens": 3})
    assert AGENT.from_proto(message) == two
    assert AGENT.from_proto(agent_pb2.AgentSettings()).engine is None


@dataclass(frozen=True)
class HalfAFile(File):
    change: Half = Half.ADDED  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("value", "message", "complaint"),
    [
        (Unnamed, catalog_pb2.Project, "only one of them has default_worker_id, display_name, floor, max_running_jobs"),
        (Named, catalog_pb2.Project, "only one of them has floor, nickname"),
        (Numbered, catalog_pb2.Project, "display_name does not fit"),
        (Missing, catalog_pb2.Project, "default_worker_id does not fit"),
        (HalfAFile, git_pb2.ChangedFile, "change does not fit"),
    ],
)
def test_a_pair_that_does_not_fit_is_refused_where_it_is_declared(
    value: type[Any], message: type[Message], complaint: str
) -> None:
    with pytest.raises(TypeError, match=complaint):
        Mapper(value, message)


def test_a_name_in_by_hand_that_nothing_has_is_refused() -> None:
    with pytest.raises(TypeError, match="none of them has colour"):
        Mapper(Project, catalog_pb2.Project, by_hand={"colour", "secrets", "floor", "todo_only"})
