import click
import pytest

from services.cli import exit_codes
from services.common import errors
from services.common.reasons import REASONS


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.Invalid([("spec.prompt", "is required")]), 2),
        (errors.NotFound("job", "job-1"), 2),
        (errors.RequestIdReused("job", "once"), 2),
        (errors.FailedPrecondition("JOB_STATE", "it has ended", "job-1"), 2),
        (errors.OutOfRange(1, 5), 2),
        (errors.Unauthenticated("no token"), 4),
        (errors.PermissionDenied("no"), 4),
        (errors.Unavailable("UNAVAILABLE", "nobody is there"), 4),
        (errors.Exhausted("DISK_FULL", "no room"), 1),
        (errors.RemoteFailure(errors.Status.INTERNAL, "INTERNAL", "internal error"), 1),
        (errors.StartError("cannot"), 1),
        (exit_codes.NotAllowedError("no token"), 4),
        (click.UsageError("what?"), 2),
        (click.Abort(), 130),
        (click.exceptions.Exit(5), 5),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_each_end_has_its_code(error: Exception, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_codes.report(error, as_json=False) == code
    assert exit_codes.report(error, as_json=True) == code
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("needed", "advice"), [("all", "token of all projects, which"), ("", "--project")])
def test_who_may_not_do_something_in_a_project_is_told_what_would_help(needed: str, advice: str) -> None:
    metadata = {"needed_projects": needed} if needed else {}
    error = errors.PermissionDenied("no", reason="PROJECT_NOT_ALLOWED", metadata=metadata)
    assert advice in exit_codes.message_for(error)


def test_wrong_fields_are_named_as_they_were_typed(capsys: pytest.CaptureFixture[str]) -> None:
    exit_codes.report(errors.Invalid([("spec.branch", "is no branch"), ("labels", "are too many")]), as_json=False)

    assert (
        capsys.readouterr().err
        == "Error: the request is invalid:\n  │ --branch is no branch\n  │ labels are too many\n"
    )


@pytest.mark.parametrize(
    ("field", "typed"),
    [
        ("spec.agent.token_budget", "--token-budget"),
        ("worker.policy.retry_on[3]", "--retry-on"),
        ("template.policy.checkpoints.before", "--approve-before"),
        ("work_item.template_id", "--template"),
        ("spec.files[0].name", "--file"),
        ("spec.prompt", "PROMPT"),
        ("spec.nothing", "spec.nothing"),
        ('template.agent.environment["9X"]', "--env 9X"),
        ("template.template_id", "ID"),
        ("worker.worker_id", "ID"),
        ("worker.display_name", "--name"),
        ("work_item.work_item_id", "ID"),
        ("work_item.title", "--title"),
        ("work_item.notes[2]", "--note"),
        ("project.default_worker_id", "--default-worker"),
        ("repository.default_revision", "--ref"),
    ],
)
def test_every_row_of_flags_names_its_field(field: str, typed: str) -> None:
    assert exit_codes.message_for(errors.Invalid([(field, "is wrong")])) == f"{typed} is wrong"


def test_json_says_the_same_to_programs(capsys: pytest.CaptureFixture[str]) -> None:
    exit_codes.report(errors.NotFound("job", "job-1"), as_json=True)

    assert '"reason": "JOB_NOT_FOUND"' in capsys.readouterr().err


def test_what_nobody_foresaw_is_not_hidden(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_codes.report(ZeroDivisionError("by 0"), as_json=False) == exit_codes.FAILED
    assert "ZeroDivisionError: by 0" in capsys.readouterr().err
    monkeypatch.setenv("BOATYARD_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        exit_codes.report(ZeroDivisionError(), as_json=False)


def test_an_internal_error_has_the_id_under_which_the_log_has_its_cause() -> None:
    metadata = {errors.REQUEST_ID: "request-7"}
    error = errors.RemoteFailure(errors.Status.INTERNAL, "INTERNAL", "internal error", metadata)

    assert exit_codes.message_for(error).startswith("internal error (request request-7); ")


def test_an_internal_error_is_advised_as_a_job_with_that_reason_is() -> None:
    error = errors.RemoteFailure(errors.Status.INTERNAL, "INTERNAL", "internal error")
    assert exit_codes.message_for(error) == f"internal error; {REASONS['INTERNAL'].advice}"
