"""The output of executions, as messages."""

from typing import Final

from boatyard.gateway.v1 import output_pb2
from boatyard.git.v1.git_pb2 import ChangedFile

from services.common.rpc.times import duration_to_proto
from services.common.text import is_utf8, lossy, raw, without_cut_character
from services.lifecycle.model.output import FileChange, Output, Verification

_CHANGES: Final = {
    "A": ChangedFile.CHANGE_ADDED,
    "M": ChangedFile.CHANGE_MODIFIED,
    "D": ChangedFile.CHANGE_DELETED,
    "R": ChangedFile.CHANGE_RENAMED,
    "T": ChangedFile.CHANGE_TYPE,
}


def output_to_proto(value: Output) -> output_pb2.Output:
    """Write an output. What is kept of diff and log is bytes; older versions cut the log inside characters."""
    changes, log_tail = value.changes, value.log_tail
    if value.output_bytes > len(log_tail):
        log_tail = without_cut_character(log_tail)
    message = output_pb2.Output(
        summary=value.summary,
        files_changed=[_file_to_proto(change) for change in changes.files],
        total_files_changed=changes.total_files,
        verification=None if value.verification is None else _verification_to_proto(value.verification),
        base_commit_id=value.base_commit_id,
        commit_id=value.commit_id,
        snapshot_id=value.snapshot_id,
        branch=lossy(value.branch),
        pushed=value.pushed,
        diff=lossy(changes.diff),
        diff_is_lossy=not is_utf8(changes.diff),
        diff_truncated=changes.diff_truncated,
        log_tail=lossy(log_tail),
        log_tail_is_lossy=not is_utf8(log_tail),
        output_bytes=value.output_bytes,
        pull_request_url=value.pull_request_url,
        pull_request_number=value.pull_request_number,
        review_comment=value.review_comment,
    )
    if value.exit_code is not None:
        message.exit_code = value.exit_code
    if value.signal is not None:
        message.signal = value.signal
    for name in ("tokens_used", "cost_usd", "tool_calls", "turns", "cpu_seconds", "memory_peak_bytes"):
        if (number := getattr(value, name)) is not None:
            setattr(message, name, number)
    return message


def _file_to_proto(change: FileChange) -> output_pb2.FileChange:
    return output_pb2.FileChange(
        path=lossy(change.path),
        raw_path=raw(change.path),
        change=_CHANGES.get(change.change, ChangedFile.CHANGE_UNSPECIFIED),
        old_path=lossy(change.old_path),
        raw_old_path=raw(change.old_path),
        additions=change.additions,
        deletions=change.deletions,
    )


def _verification_to_proto(value: Verification) -> output_pb2.Verification:
    return output_pb2.Verification(
        execution_id=value.execution_id,
        passed=value.passed,
        exit_code=value.exit_code,
        reason=value.reason,
        duration=duration_to_proto(value.duration),
    )
