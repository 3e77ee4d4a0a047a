"""The output of executions, as messages."""

from dataclasses import replace
from typing import Final

from boatyard.gateway.v1 import output_pb2 as pb
from boatyard.git.v1 import git_pb2

from services.common.rpc.mapper import Mapper
from services.common.text import is_utf8, lossy, without_cut_character
from services.lifecycle.model.output import Artifact, FileChange, OmittedArtifact, Output, Verification

_OUTPUT: Final = Mapper(
    Output,
    pb.Output,
    by_hand={
        *("changes", "files_changed", "total_files_changed", "diff", "diff_is_lossy", "diff_truncated"),
        *("artifacts", "total_artifacts", "total_artifact_bytes", "omitted_artifacts", "total_omitted_artifacts"),
        *("verification", "incomplete"),
    },
)
_FILE_CHANGE: Final = Mapper(FileChange, pb.FileChange)
ARTIFACT: Final = Mapper(Artifact, git_pb2.Artifact)
_OMITTED_ARTIFACT: Final = Mapper(OmittedArtifact, git_pb2.OmittedArtifact)
_VERIFICATION: Final = Mapper(Verification, pb.Verification, by_hand={"message"})


def output_to_proto(value: Output) -> pb.Output:
    """Write an output. What is kept of diff and log is bytes; older versions cut the log inside characters."""
    changes, artifacts = value.changes, value.artifacts
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
        artifacts=map(ARTIFACT.to_proto, artifacts.kept),
        total_artifacts=artifacts.total,
        total_artifact_bytes=artifacts.total_bytes,
        omitted_artifacts=map(_OMITTED_ARTIFACT.to_proto, artifacts.omitted),
        total_omitted_artifacts=artifacts.total_omitted,
        verification=None if value.verification is None else _VERIFICATION.to_proto(value.verification),
    )
