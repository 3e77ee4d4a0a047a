"""Reads the submission of a job from its message, and checks what its rules in the proto cannot say."""

from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from boatyard.gateway.v1 import job_pb2 as pb

from services.agent.wire import REPLAY_MATCHINGS, recording_complaint
from services.common.rpc.mapper import Mapper
from services.common.rpc.rule_options import listed
from services.common.rpc.rules import Check, Violation
from services.common.untrusted_json import parse_json
from services.gateway import scope
from services.gateway.jobs.kinds import DEFAULT_KIND
from services.gateway.jobs.submission import JobSubmission
from services.lifecycle.model.job_context import FileContent

MAX_DELAY: Final = timedelta(days=366)
MAX_FILES_BYTES: Final = 2 << 20
_BRANCHES: Final = "refs/heads/"

_SUBMISSION: Final = Mapper(
    JobSubmission,
    pb.JobSpec,
    by_hand={"project_id", "kind", "branch", "not_before", "not_before_time", "files", "path", "replay", "recording"},
)


def submission_from_proto(spec: pb.JobSpec) -> JobSubmission:
    """Read a submission."""
    not_before = spec.not_before_time.ToDatetime(UTC) if spec.HasField("not_before_time") else None
    return _SUBMISSION.from_proto(
        spec,
        project_id=spec.project_id or scope.default_project(),
        kind=spec.kind or DEFAULT_KIND,
        branch=branch_from_proto(spec.branch),
        not_before=not_before,
        files=tuple(FileContent(file.name, file.content) for file in spec.files),
        replay=REPLAY_MATCHINGS[spec.replay.matching] if spec.HasField("replay") else None,
        recording=spec.replay.recording,
        path="spec.",
    )


def checks(kinds: Collection[str]) -> Mapping[str, Check]:
    """Return the rules for submissions as a whole, by their full names; jobs are of these `kinds`."""
    return {
        pb.JobSpec.DESCRIPTOR.full_name: lambda spec: _check_spec(spec, kinds),
        pb.PushJobRequest.DESCRIPTOR.full_name: lambda request: check_branch(request.branch),
    }


def branch_from_proto(branch: str) -> bytes:
    """Read the name of a branch, which may be given below refs/heads/."""
    return branch.removeprefix(_BRANCHES).encode()


def _check_spec(spec: pb.JobSpec, kinds: Collection[str]) -> Iterator[Violation]:
    if (spec.kind or DEFAULT_KIND) not in kinds:
        yield "kind", f"must be {listed(sorted(kinds))}"
    if spec.revision and spec.snapshot_id:
        yield "snapshot_id", "takes the place of `revision`: set one of them only"
    if spec.not_before_time.seconds > (datetime.now(UTC) + MAX_DELAY).timestamp():
        yield "not_before_time", f"must be at most {MAX_DELAY.days} days ahead"
    yield from check_branch(spec.branch)
    yield from _check_files(spec)
    if spec.data and (complaint := _object_complaint(spec.data)) is not None:
        yield "data", complaint


def check_branch(branch: str) -> Iterator[Violation]:
    """Yield what is wrong with the name of a branch."""
    if branch.startswith("refs/") and not branch.removeprefix(_BRANCHES).strip("/"):
        yield "branch", "names no branch"
    elif branch.startswith("refs/") and not branch.startswith(_BRANCHES):
        yield "branch", "must be a branch's name, or that below refs/heads/"


def _check_files(spec: pb.JobSpec) -> Iterator[Violation]:
    names = [file.name for file in spec.files]
    directories = {name[:end] for name in names for end, character in enumerate(name) if character == "/"}
    for index, name in enumerate(names):
        if not name.isprintable():
            yield f"files[{index}].name", "must be of visible characters"
    if len(set(names)) < len(names) or not directories.isdisjoint(names):
        yield "files", "must each have a unique name, which is not the directory of another file"
    if sum(len(file.content) for file in spec.files) + len(spec.replay.recording) > MAX_FILES_BYTES:
        with_replay = ", with the recording of `replay`" if spec.HasField("replay") else ""
        yield "files", f"must be at most {MAX_FILES_BYTES >> 20} MiB together{with_replay}"
    if spec.HasField("replay") and (complaint := recording_complaint(spec.replay)) is not None:
        yield "replay.recording", complaint


def _object_complaint(text: str) -> str | None:
    try:
        is_object = isinstance(parse_json(text, strict=True), dict)
    except ValueError as error:
        return f"must be a JSON object: {error}"
    return None if is_object else "must be a JSON object"
