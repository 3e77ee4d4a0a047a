"""What people type of a job's input, time and labels."""

from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from boatyard.gateway.v1 import job_pb2 as pb

from services.cli.fields import fill
from services.cli.flags import JOB_FLAGS, readers_of
from services.cli.parsing import selector


def spec(**typed: object) -> pb.JobSpec:
    message = pb.JobSpec()
    fill(message, typed, readers_of(JOB_FLAGS))
    return message


def test_all_of_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "rows=1.csv").write_bytes(b"\xff")
    (tmp_path / "data.json").write_text('{"a": 1}\n')
    asked = spec(
        kind="review",
        files=(f"in/rows.csv={tmp_path}/rows=1.csv",),
        data=f"@{tmp_path}/data.json",
        labels=("team=a=b", "bare="),
        not_before_time="2030-01-31T08:00+01:00",
    )
    assert (asked.kind, asked.data) == ("review", '{"a": 1}')
    assert [(file.name, file.content) for file in asked.files] == [("in/rows.csv", b"\xff")]
    assert dict(asked.labels) == {"team": "a=b", "bare": ""}
    assert asked.not_before_time.ToDatetime(UTC) == datetime(2030, 1, 31, 7, tzinfo=UTC)
    named = spec(revision="@v1", branch="@w\u00f6rk")
    assert (named.revision, named.branch) == ("@v1", "@w\u00f6rk"), "a name is no file"
    assert spec(delay=1.5).delay.ToMilliseconds() == 1500
    assert spec() == pb.JobSpec()


@pytest.mark.parametrize(
    "typed",
    [
        {"files": ("a",)},
        {"files": ("=a",)},
        {"files": ("a=/nowhere",)},
        {"labels": ("a",)},
        {"not_before_time": "soon"},
    ],
)
def test_what_cannot_be_read_is_said(typed: dict[str, object]) -> None:
    with pytest.raises(click.UsageError, match=r"must be|cannot read"):
        spec(**typed)


@pytest.mark.parametrize(
    ("typed", "key", "values", "match"),
    [
        ("env=prod", "env", ["prod"], pb.LabelSelector.MATCH_HAS),
        ("env=", "env", [""], pb.LabelSelector.MATCH_HAS),
        ("env", "env", [], pb.LabelSelector.MATCH_HAS),
        ("env!=a=b", "env", ["a=b"], pb.LabelSelector.MATCH_LACKS),
        ("!env", "env", [], pb.LabelSelector.MATCH_LACKS),
    ],
)
def test_labels_are_selected(typed: str, key: str, values: list[str], match: int) -> None:
    found = selector(typed)
    assert (found.key, list(found.values), found.match) == (key, values, match)
