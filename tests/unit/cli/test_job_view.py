import io
from datetime import UTC, datetime, timedelta

import pytest
from boatyard.gateway.v1 import job_pb2, output_pb2
from boatyard.gateway.v1.checkpoint_pb2 import Checkpoint
from boatyard.git.v1.git_pb2 import ChangedFile
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console

from services.cli import humanize, job_view
from services.cli.screen import Screen, first_line
from tests.unit.cli.test_shapes import finished_job


def told(tell, *arguments: object, terminal: bool = False) -> str:
    """What a person reads, on a wide page."""
    screen = Screen()
    page = io.StringIO()
    screen.out = screen.err = Console(file=page, force_terminal=terminal, width=200, highlight=False, soft_wrap=True)
    tell(screen, *arguments)
    return page.getvalue()


def test_an_end_says_what_a_person_asks_next() -> None:
    text = told(job_view.print_end, finished_job())

    for part in (
        "FAILED VERIFY_FAILED: the check did not pass",
        "boatyard/job-1 (kept on this machine, not pushed)",
        "2 files changed",
        "did not pass: exit code 3; see `boatyard logs exec-v`",
        "3.0 s",
    ):
        assert part in text
    assert "\x1b" not in text  # colour is for terminals


def test_nothing_changed_is_said_and_no_branch_is_promised() -> None:
    output = output_pb2.Output(branch="boatyard/job-1", commit_id="c" * 40)
    text = told(job_view.print_end, job_pb2.Job(state=job_pb2.Job.STATE_SUCCEEDED, output=output))

    assert "nothing changed" in text
    assert "boatyard/job-1" not in text


def test_many_files_are_counted() -> None:
    changes = [
        output_pb2.FileChange(path=f"f{number}", change=ChangedFile.CHANGE_ADDED, additions=1) for number in range(100)
    ]
    output = output_pb2.Output(commit_id="c", files_changed=changes, total_files_changed=1200)
    text = told(job_view.print_end, job_pb2.Job(output=output))

    assert "1200 files changed" in text
    assert "… and 1180 more" in text


def test_an_agents_words_move_no_cursor() -> None:
    job = finished_job()
    job.message = job.output.summary = "\x1b[2J\x1b]0;title\x07gone"
    job.output.files_changed[0].path = "a\rb\x1b[31m"
    job.timeline.add(name="agent", message="\x1b[1A")
    text = told(job_view.print_job, job)

    assert not set("\x1b\x07\r") & set(text)


def test_ids_in_a_table_stay_whole_on_a_narrow_terminal() -> None:
    screen, page = Screen(), io.StringIO()
    screen.out = Console(file=page, force_terminal=True, color_system=None, width=40, soft_wrap=True)
    screen.table(("JOB", "PROMPT"), [("j" * 30, "a long\tprompt"), ("k", "grüße 東京")], cut_last=True)

    assert page.getvalue().splitlines() == [
        "JOB" + " " * 29 + "PROMPT",
        "j" * 30 + "  a long p",
        "  ↪ ro",
        "k" + " " * 31 + "grüße 東",
        "  ↪ 京",
    ]


def test_a_table_for_programs_has_tabs(capfd: pytest.CaptureFixture[str]) -> None:
    Screen().table(("JOB", "PROMPT"), [("j", "with\ttab")])

    assert capfd.readouterr().out == "JOB\tPROMPT\nj\twith tab\n"


def test_a_stage_is_a_line() -> None:
    record = job_pb2.StageRecord(
        name="base",
        state=job_pb2.StageRecord.STATE_FAILED,
        message="no such repository\nfatal: really",
        start_time=Timestamp(seconds=1),
        end_time=Timestamp(seconds=3),
    )

    assert job_view.stage_line(record).plain == "✗ base           2.0 s  no such repository …"


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (-5, "0.0 s"),
        (840, "0.8 s"),
        (59_940, "59.9 s"),
        (59_960, "1 min 00 s"),
        (65_000, "1 min 05 s"),
        (3_599_900, "1 h 00 min"),
        (7_380_000, "2 h 03 min"),
    ],
)
def test_durations(milliseconds: int, text: str) -> None:
    assert humanize.duration(milliseconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (61, "1 min"), (7300, "2 h"), (200_000, "2 d"), (-9, "0 s")])
def test_ages(seconds: int, text: str) -> None:
    assert humanize.age(Timestamp(seconds=1_000_000), datetime.fromtimestamp(1_000_000 + seconds, UTC)) == text


@pytest.mark.parametrize(
    ("number", "text"), [(9, "9 B"), (1536, "1.5 KiB"), (100 << 20, "100.0 MiB"), (5 << 30, "5.0 GiB")]
)
def test_sizes(number: int, text: str) -> None:
    assert humanize.size(number) == text


def test_lines_are_cut_where_they_end() -> None:
    assert first_line("first\nsecond") == "first …"
    assert first_line("x" * 10, 4) == "xxxx…"


def test_verification_without_a_code_gives_its_reason() -> None:
    check = output_pb2.Verification(passed=False, reason="TIMED_OUT", duration=Duration(seconds=600))
    text = told(job_view.print_end, job_pb2.Job(output=output_pb2.Output(verification=check)))

    assert "did not pass in 10 min 00 s: TIMED_OUT" in text


def test_what_a_job_works_on_and_waits_for_is_told() -> None:
    soon = Timestamp()
    soon.FromDatetime(datetime(2100, 1, 1, tzinfo=UTC))
    spec = job_pb2.JobSpec(
        kind="review",
        labels={"team": "ops", "env": ""},
        files=[job_pb2.InputFile(name="a.csv", size_bytes=2048)],
        data="{}",
        not_before_time=soon,
    )
    text = told(job_view.print_job, job_pb2.Job(spec=spec))

    for part in ("review", "env=, team=ops", "a.csv (2.0 KiB), data (2 B)", "2100-01-01 00:00:00 UTC (in "):
        assert part in text


def test_questions_say_how_to_answer_and_who_did() -> None:
    now = Timestamp()
    now.GetCurrentTime()
    job = job_pb2.Job(state=job_pb2.Job.STATE_AWAITING_APPROVAL)
    asked = {"job_id": "job-1", "question": "May it be pushed?\nReally?", "create_time": now, "expire_time": now}
    job.checkpoints.add(**asked, state=Checkpoint.STATE_CHANGES_REQUESTED, comment="Louder.", decider={"name": "ann"})
    job.checkpoints[0].decide_time.FromDatetime(datetime.now(UTC) - timedelta(minutes=90))
    job.checkpoints.add(**asked, state=Checkpoint.STATE_PENDING)
    text = told(job_view.print_job, job)

    assert "CHANGES_REQUESTED by ann 1 h ago: May it be pushed? … — Louder." in text
    assert "PENDING for now, `boatyard approve job-1` or `reject`: May it be pushed? …" in text
