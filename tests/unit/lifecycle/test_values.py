"""What is written down is read back the same, and what is shown to people fits."""

from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.db.outages import outage
from services.common.errors import Exhausted, FailedPrecondition, Invalid, NotFound, OutOfRange, RemoteFailure, Status
from services.lifecycle.failures import INTERNAL, explained
from services.lifecycle.model.authors import author
from services.lifecycle.model.ids import workspace_of
from services.lifecycle.model.job_context import JobContext
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.node_work import Run
from services.lifecycle.model.outcome import Failure
from services.lifecycle.model.output import ExecutionNote
from services.lifecycle.model.policy import RETRY_ON
from services.lifecycle.model.value import dump, load, pack, unpack
from services.lifecycle.stages.executions import exited, last_lines
from services.lifecycle.stages.result import commit_message

# JSON has neither NaN nor surrogates, and times are of UTC.
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))
st.register_type_strategy(str, st.text(st.characters(exclude_categories=["Cs"])))
TIMES = st.datetimes(timezones=st.just(UTC))


@given(st.builds(JobSpec, create_time=TIMES))
def test_an_order_survives(order: JobSpec) -> None:
    text = dump(order)
    assert text.isascii()
    assert load(JobSpec, text) == order
    assert unpack(JobSpec, pack(order)) == order


@given(st.builds(ExecutionNote, start_time=TIMES, end_time=st.none() | TIMES))
def test_a_note_survives(note: ExecutionNote) -> None:
    assert load(ExecutionNote, dump(note)) == note


@given(st.binary())
def test_what_nobody_packed_is_refused(data: bytes) -> None:
    for wrong in (data, pack(Failure("A", "b"))[:-1], pack(Failure("A", "b"))[:-4] + data[:4].ljust(4, b"?")):
        with pytest.raises(ValueError):
            unpack(Failure, wrong)


def test_what_another_version_wrote_is_read() -> None:
    assert load(Failure, '{"reason": "A", "message": "b", "later": 1}') == Failure("A", "b")


def test_a_secret_is_in_no_text_of_its_owner() -> None:
    text = '{"remote": {"repository_id": "r", "url": "u", "token": "hidden"}, "hooks": [], "document": ""}'
    surroundings = load(JobContext, text)
    assert surroundings.remote
    assert surroundings.remote.token == "hidden"
    assert "hidden" not in repr(surroundings)


@given(st.text(), st.text(min_size=1))
def test_a_commit_message_has_one_subject_and_its_trailer(prompt: str, job_id: str) -> None:
    subject, blank, trailer = commit_message(prompt, "job-1").removesuffix("\n").split("\n")
    assert subject
    assert len(subject) <= 72
    assert subject.isprintable()
    assert (blank, trailer) == ("", "Boatyard-Job: job-1")


def test_an_author_is_a_part_of_a_line() -> None:
    assert author("Ada\ncommitter Boatyard") == r"Ada\ncommitter Boatyard"
    assert author("nimda\u202e") == r"nimda\u202e"
    assert author("") == "Boatyard"
    assert len(author("é" * 200).encode()) <= 255


def test_the_subject_is_the_first_line_that_says_something() -> None:
    assert commit_message("\n \n  Mend\tthe mast \nand the hull", "job-1").startswith("Mend the mast\n")


@given(st.binary(), st.integers(1, 40))
def test_last_lines_fit_and_are_last(output: bytes, size: int) -> None:
    said = last_lines(output, size)
    assert len(said.encode()) <= size
    assert output.decode(errors="replace").strip().endswith(said)


def test_last_lines_are_whole_where_one_fits() -> None:
    assert last_lines(b"first\nsecond\nthird\n", 14) == "second\nthird"
    assert last_lines(b"a line without end", 8) == "hout end"


def test_an_errand_that_was_forced_to_end_has_not_exited() -> None:
    assert exited(Run("e", "FAILED", "AGENT_FAILED", exit_code=3))  # type: ignore[arg-type]
    assert not exited(Run("e", "FAILED", "TIMED_OUT", exit_code=143))  # type: ignore[arg-type]
    assert not exited(Run("e", "FAILED", "SANDBOX_FAILED"))  # type: ignore[arg-type]


def test_ids_are_made_of_each_other() -> None:
    assert workspace_of("exec-01abc") == "ws-01abc"
    assert workspace_of("exec-01abc-verify") == "ws-01abc-verify"
    assert len(workspace_of(f"exec-{'0' * 26}-hook-1000")) <= 63


def test_what_a_node_says_is_passed_on_where_it_means_something() -> None:
    said = FailedPrecondition("CLONE_FAILED", "could not read from it", "repo")
    assert explained(said, "base") == Failure("CLONE_FAILED", "could not read from it")
    private = FailedPrecondition("ADDRESS_NOT_ALLOWED", "name its network in …", "git.lan")
    assert explained(private, "base") == Failure("ADDRESS_NOT_ALLOWED", "name its network in …")
    assert explained(NotFound("revision", "main"), "base").reason == "REVISION_NOT_FOUND"
    assert explained(Exhausted("DISK_FULL", "no room", quota="disk"), "workspace").reason == "DISK_FULL"
    assert explained(outage(lacks_room=True), "start").reason == "DISK_FULL"
    inodes = Exhausted("NODE_BUSY", "too few are free", retry_after=1.0, metadata={"resource": "inodes"})
    assert explained(inodes, "start") == Failure("DISK_FULL", "too few are free")
    assert explained(NotFound("base", "/bases/r/c"), "workspace").reason == "BASE_NOT_FOUND"
    assert explained(NotFound("repository", "r"), "take").reason == "REPOSITORY_NOT_FOUND"
    assert explained(NotFound("execution", "e"), "agent").reason == "EXECUTION_NOT_FOUND"
    assert explained(OutOfRange(9, 9, reason="EVENTS_TRIMMED"), "agent").reason == "EVENTS_TRIMMED"
    assert explained(Invalid([("spec.argv", "is wrong")]), "start") == INTERNAL
    assert explained(RemoteFailure(Status.INTERNAL, "INTERNAL", "secret words"), "take") == INTERNAL


@pytest.mark.parametrize("stage", ["base", "take", "verify", "push"])
@pytest.mark.parametrize("field", ["url", "token", "ca"])
def test_what_a_machines_settings_forbid_of_a_remote_is_refused_once(field: str, stage: str) -> None:
    refused = Invalid([("commit_id", "is odd"), (f"remote.{field}", "may be … only where SETTING is true")])
    failure = explained(refused, stage)
    assert failure == Failure("REMOTE_NOT_ALLOWED", f"the remote's {field} may be … only where SETTING is true")
    assert failure.reason not in RETRY_ON
    assert explained(Invalid([("branch", "is no branch")]), stage).reason == "INVALID_BRANCH"
    assert explained(Invalid([("commit_id", "is odd")]), stage) == INTERNAL, "we ask with our own ids"
