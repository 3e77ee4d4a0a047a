"""The output of executions, as messages."""

from dataclasses import replace
from typing import Final

from boatyard.gateway.v1 import output_pb2 as pb

from services.common.rpc.mapper import Mapper
from services.common.text import is_utf8, lossy, without_cut_character
from services.lifecycle.model.output import FileChange, Output, Verification

_OUTPUT: Final = Mapper(
    Output,
    pb.Output,
    by_hand={
        *("changes", "files_changed", "total_files_changed", "diff", "diff_is_lossy", "diff_truncated"),
        *("verification", "incomplete"),
    },
)
_FILE_CHANGE: Final = Mapper(FileChange, pb.FileChange)
_VERIFICATION: Final = Mapper(Verification, pb.Verification, by_hand={"message"})


def output_to_proto(value: Output) -> pb.Output:
    """Write an output. What is kept of diff and log is bytes; older versions cut the log inside characters."""
    changes = value.changes
    if value.output_bytes > len(value.log_tail):
        value = replace(value, log_tail=without_cut_character(value.log_tail))
    return _OUTPUT.to_proto(
        value,
        files_changed=map(_FILE_CHANGE.to_proto, changes.files),
        total_files_changed=changes.total_files,
        diff=lossy(changes.diff),
        diff_is_lossy=not is_utf8(changes.diff),
        diff_truncated=changes.diff_truncated,
        incomplete=value.incomplete,
        verification=None if value.verification is None else _VERIFICATION.to_proto(value.verification),
    )
