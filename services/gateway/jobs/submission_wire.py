"""Reads the submission of a job from its message."""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from boatyard.gateway.v1 import job_pb2 as pb

from services.agent.wire import AGENT
from services.gateway import scope
from services.gateway.jobs.kinds import DEFAULT_KIND, Kinds
from services.gateway.jobs.submission import JobSubmission
from services.gateway.schema.idempotency import IdempotencyKey
from services.gateway.schema.jobs import MAX_FILE_NAME_BYTES
from services.gateway.wire.policy import POLICY
from services.gateway.wire.validation import Validator
from services.lifecycle.model.hook_answers import MAX_LABEL_CHARACTERS, MAX_LABELS, is_label
from services.lifecycle.model.job_context import FileContent
from services.lifecycle.model.job_spec import INPUT_DIRECTORY, MAX_PROMPT_BYTES

MAX_PRIORITY: Final = 100
MAX_DELAY: Final = timedelta(days=366)
MAX_FILES: Final = 256
MAX_FILES_BYTES: Final = 2 << 20
MAX_DATA_BYTES: Final = 256 << 10

# What git refuses anywhere in a branch's name (git-check-ref-format). What it refuses as a whole name is checked below.
_BAD_BRANCH: Final = re.compile(rb"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(/|$)|\.$|/$")


def submission_from_proto(request: pb.CreateJobRequest, kinds: Kinds) -> tuple[JobSubmission, IdempotencyKey | None]:
    """Read a submission. Raises Invalid with all violations."""
    spec = request.spec
    with Validator() as check:
        check.part(request, "spec")
        if (spec.kind or DEFAULT_KIND) not in kinds:
            check.add("spec.kind", f"must be {' or '.join(sorted(kinds))}")
        if not -MAX_PRIORITY <= spec.priority <= MAX_PRIORITY:
            check.add("spec.priority", f"must be from -{MAX_PRIORITY} to {MAX_PRIORITY}")
        if spec.revision and spec.snapshot_id:
            check.add("spec.snapshot_id", "takes the place of `revision`: set one of them only")
        submission = JobSubmission(
            project_id=check.optional_id("spec.project_id", spec.project_id) or scope.default_project(),
            kind=spec.kind or DEFAULT_KIND,
            priority=spec.priority,
            prompt=check.text("spec.prompt", spec.prompt, MAX_PROMPT_BYTES, required=True),
            repository_id=check.optional_id("spec.repository_id", spec.repository_id),
            revision=check.revision("spec.revision", spec.revision),
            snapshot_id=check.optional_id("spec.snapshot_id", spec.snapshot_id),
            branch=branch_from_proto(check, "spec.branch", spec.branch),
            worker_id=check.optional_id("spec.worker_id", spec.worker_id),
            work_item_id=check.optional_id("spec.work_item_id", spec.work_item_id),
            template_id=check.optional_id("spec.template_id", spec.template_id),
            agent=AGENT.from_proto(spec.agent),
            policy=POLICY.from_proto(spec.policy),
            labels=_labels_from_proto(check, spec.labels),
            delay=check.duration("spec.delay", spec.delay, MAX_DELAY) if spec.HasField("delay") else None,
            not_before=_not_before_from_proto(check, spec) if spec.HasField("not_before_time") else None,
            files=_files_from_proto(check, spec.files),
            data=_data_from_proto(check, spec.data),
            path="spec.",
        )
        key = check.idempotency_key(request, request.request_id)
    return submission, key


def branch_from_proto(check: Validator, field: str, value: str) -> bytes:
    """Read a branch's name, which may be empty."""
    branch = value.encode()
    if branch and (
        len(branch) > 244
        or branch.startswith((b"-", b"/", b"."))
        or branch in {b"@", b"HEAD"}
        or _BAD_BRANCH.search(branch)
    ):
        check.add(field, "must be a name that git allows for a branch, of at most 244 bytes")
    return branch


def _labels_from_proto(check: Validator, labels: Mapping[str, str]) -> dict[str, str]:
    if len(labels) > MAX_LABELS:
        check.add("spec.labels", f"must be at most {MAX_LABELS}")
    for name, value in labels.items():
        if not is_label(name, value):
            rule = f"must have keys of 1 to {MAX_LABEL_CHARACTERS} visible characters, and values no longer"
            check.add("spec.labels", rule)
    return dict(labels)


def _not_before_from_proto(check: Validator, spec: pb.JobSpec) -> datetime:
    time = check.moment("spec.not_before_time", spec.not_before_time)
    if time > datetime.now(UTC) + MAX_DELAY:
        check.add("spec.not_before_time", f"must be at most {MAX_DELAY.days} days ahead")
    return time


def _files_from_proto(check: Validator, files: Sequence[pb.InputFile]) -> tuple[FileContent, ...]:
    names = [file.name for file in files]
    directories = {name[:end] for name in names for end, character in enumerate(name) if character == "/"}
    for index, name in enumerate(names):
        parts = name.split("/")
        is_valid = len(name.encode()) <= MAX_FILE_NAME_BYTES and name.isprintable()
        if not is_valid or not {"", ".", ".."}.isdisjoint(parts):
            rule = (
                f"must be a path of at most {MAX_FILE_NAME_BYTES} bytes below {INPUT_DIRECTORY}, without '.' and '..'"
            )
            check.add(f"spec.files[{index}].name", rule)
    if len(set(names)) < len(names) or not directories.isdisjoint(names):
        check.add("spec.files", "must each have a unique name, which is not the directory of another file")
    if len(files) > MAX_FILES or sum(len(file.content) for file in files) > MAX_FILES_BYTES:
        check.add("spec.files", f"must be at most {MAX_FILES}, and {MAX_FILES_BYTES >> 20} MiB together")
    return tuple(FileContent(file.name, file.content) for file in files)


def _data_from_proto(check: Validator, text: str) -> bytes:
    """Check that the text is a JSON object, and keep it as it is: parsed, its large numbers would change."""
    data = text.encode()
    if len(data) > MAX_DATA_BYTES:
        check.add("spec.data", f"must be at most {MAX_DATA_BYTES >> 10} KiB")
    elif text and not _is_object(text):
        check.add("spec.data", "must be a JSON object")
    return data


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
