"""What people type of a job's input, time and labels."""

import re
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from boatyard.gateway.v1 import job_pb2 as pb

from services.cli.flag_table import RUN
from services.cli.flags import Flag, fill, options_of
from services.cli.options import TEXT
from services.cli.parsing import moment, selector, span, text_or_file


def spec(*typed: str) -> pb.JobSpec:
    """Read options of `boatyard run` as it does."""
    message = pb.JobSpec()
    command = click.Command("run", params=options_of(pb.JobSpec, RUN))
    fill(message, RUN, command.make_context("run", list(typed)).params)
    return message


def test_all_of_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "rows=1.csv").write_bytes(b"\xff")
    (tmp_path / "data.json").write_text('{"a": 1}\n')
    asked = spec(
        *("--kind", "review", "--file", f"in/rows.csv={tmp_path}/rows=1.csv", "--data", f"@{tmp_path}/data.json"),
        *("--label", "team=a=b", "--label", "bare=", "--not-before", "2030-01-31T08:00+01:00"),
    )
    assert (asked.kind, asked.data) == ("review", '{"a": 1}')
    assert [(file.name, file.content) for file in asked.files] == [("in/rows.csv", b"\xff")]
    assert dict(asked.labels) == {"team": "a=b", "bare": ""}
    assert asked.not_before_time.ToDatetime(UTC) == datetime(2030, 1, 31, 7, tzinfo=UTC)
    named = spec("--ref", "@v1", "--branch", "@w\u00f6rk")
    assert (named.revision, named.branch) == ("@v1", "@w\u00f6rk"), "a name is no file"
    assert spec("--delay", "1.5").delay.ToMilliseconds() == 1500
    assert spec() == pb.JobSpec()


@pytest.mark.parametrize("flag", [flag for flag in RUN if re.fullmatch("[A-Z]+=[A-Z]+", flag.metavar or "")])
def test_what_has_no_name_is_told_the_shape_that_the_help_shows(flag: Flag) -> None:
    for typed in ("a", "=a", "", "/tmp/rows.csv"):
        with pytest.raises(click.UsageError, match=f"{typed!r} must be {flag.metavar}$"):
            spec(flag.option, typed)


@pytest.mark.parametrize(
    "typed",
    [
        ("--file", "a"),
        ("--file", "=a"),
        ("--file", "a=/nowhere"),
        ("--data", "@/nowhere"),
        ("--label", "a"),
        ("--env", "a"),
        ("--not-before", "soon"),
        ("--timeout", "soon"),
        ("--max-turns", "1.5"),
        ("--max-turns", "9999999999"),
        *(("--max-turns", number) for number in ("9" * 30, "-" + "9" * 30, "9" * 5000, "nan", "inf", "\u0663.5")),
        *(("--timeout", seconds) for seconds in ("nan", "inf", "-inf", "1e999", "")),
        ("--memory", "9" * 400),
        ("--memory", "9" * 400 + "T"),
        ("--network", "wide"),
        ("--memory", "99999999999G"),
        *(("--memory", size) for size in ("2Q", "-1", "1e9", "G", "")),
        *(("--verify", blank) for blank in ("", " ", "\t\n", "\u3000")),
        ("--publish", "push", "--no-push"),
        ("--delay", "3", "--not-before", "2030-01-31"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_read_is_wrong_usage_and_names_the_option(typed: tuple[str, ...]) -> None:
    with pytest.raises(click.UsageError) as raised:
        spec(*typed)
    assert typed[0] in raised.value.format_message()


def test_limits_are_typed_as_people_write_them() -> None:
    agent = spec(
        "--memory", "1.5G", "--disk", "300 MiB", "--output", "1000", "--ask-before", "a", "--ask-before", "b"
    ).agent

    assert (agent.memory_bytes, agent.disk_bytes, agent.output_bytes) == (3 << 29, 300 << 20, 1000)
    assert list(agent.anthropic.ask_before) == ["a", "b"]


@pytest.mark.parametrize(("typed", "stages"), [("push", ["push"]), ("start, push", ["start", "push"]), ("none", [])])
def test_where_people_are_asked_is_typed_as_a_list(typed: str, stages: list[str]) -> None:
    policy = spec("--approve-before", typed).policy

    assert policy.HasField("checkpoints"), "also where it is nowhere: that hides what a layer below says"
    assert list(policy.checkpoints.before) == stages


def test_a_time_without_a_zone_is_local() -> None:
    assert moment("2030-01-31").ToDatetime(UTC) == datetime(2030, 1, 31).astimezone(UTC)


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


@pytest.mark.parametrize("typed", ["nan", "inf", "0", "-1", "1e300", "9" * 400, "", "a"])
def test_hours_and_days_that_no_clock_has_are_refused(typed: str) -> None:
    with pytest.raises(ValueError, match=r"is not a number|is out of range"):
        span(typed)


@pytest.mark.parametrize(
    "text",
    [
        "@ada look at this",
        "@",
        "@ ",
        "@@",
        "@\u00fc: d\u00e9j\u00e0 vu",
        "@a/b/c",
        "@\nsecond line",
        "@" * 300,
        "@-dash",
    ],
)
def test_a_text_may_begin_with_a_mention(text: str) -> None:
    assert text_or_file(f"@{text}") == text
    if not text.startswith("@@"):
        with pytest.raises(ValueError, match=re.escape(f"written with two of them, @{text[:20]}")):
            text_or_file(text)


def test_text_is_utf8_where_the_locale_has_only_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsencode", lambda text: text.encode("ascii", "surrogateescape"))

    assert TEXT.convert("r\udcc3\udca9parer", None, None) == "r\u00e9parer"
    with pytest.raises(click.UsageError):
        TEXT.convert("r\udcff", None, None)
