"""The output of executions, as messages."""

from dataclasses import replace
from typing import Final

from boatyard.gateway.v1 import output_pb2 as pb
from boatyard.git.v1.git_pb2 import ChangedFile

from services.common.rpc.mapper import Mapper
from services.common.text import is_utf8, lossy, without_cut_character
from services.lifecycle.model.output import FileChange, Output, Verification

_CHANGES: Final = {
    "A": ChangedFile.CHANGE_ADDED,
    "M": ChangedFile.CHANGE_MODIFIED,
    "D": ChangedFile.CHANGE_DELETED,
    "R": ChangedFile.CHANGE_RENAMED,
    "T": ChangedFile.CHANGE_TYPE,
}


_OUTPUT: Final = Mapper(
    Output,
    pb.Output,
    by_hand={
        *("changes", "files_changed", "total_files_changed", "diff", "diff_is_lossy", "diff_truncated"),
        "verification",
    },
)
_FILE_CHANGE: Final = Mapper(FileChange, pb.FileChange, by_hand={"change"})
_VERIFICATION: Final = Mapper(Verification, pb.Verification, by_hand={"message"})


def output_to_proto(value: Output) -> pb.Output:
    """Write an output. What is kept of diff and log is bytes; older versions cut the log inside characters."""
    changes = value.changes
    if value.output_bytes > len(value.log_tail):
        value = replace(value, log_tail=without_cut_character(value.log_tail))
    return _OUTPUT.to_proto(
        value,
        files_changed=map(_file_to_proto, changes.files),
        total_files_changed=changes.total_files,
        diff=lossy(changes.diff),
        diff_is_lossy=not is_utf8(changes.diff),
        diff_truncated=changes.diff_truncated,
        verification=None if value.verification is None else _VERIFICATION.to_proto(value.verification),
    )


def _file_to_proto(change: FileChange) -> pb.FileChange:
    return _FILE_CHANGE.to_proto(change, change=_CHANGES.get(change.change, ChangedFile.CHANGE_UNSPECIFIED))
