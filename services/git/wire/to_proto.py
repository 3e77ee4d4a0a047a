"""Writes the service's own types as the contract's messages; `from_proto` is the other direction."""

from collections.abc import Iterator
from typing import Final, TypeVar

from boatyard.git.v1 import git_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

from services.common.db.paging import Page
from services.common.rpc.mapper import Mapper
from services.git.disk.budget import DiskUsage, RepositoryUsage
from services.git.model import (
    Artifact,
    Base,
    ChangedFile,
    Clone,
    CloneUsage,
    DiffEnd,
    Head,
    OmittedArtifact,
    Progress,
    ResultCommit,
    Snapshot,
    StatusEntry,
    TakenArtifacts,
)

_Row = TypeVar("_Row", StatusEntry, ChangedFile)

_PIECE: Final = 64 * 1024
_BASES_TOLD: Final = 100
_OMISSIONS_TOLD: Final = 100

HEAD: Final = Mapper(Head, pb.GetCurrentBranchResponse)
RESULT: Final = Mapper(ResultCommit, pb.TakeResultResponse, by_hand={"lost_repositories", "raw_lost_repositories"})
SNAPSHOT: Final = Mapper(Snapshot, pb.Snapshot)
_ARTIFACT: Final = Mapper(Artifact, pb.Artifact)
_OMITTED_ARTIFACT: Final = Mapper(OmittedArtifact, pb.OmittedArtifact)
BASE: Final = Mapper(Base, pb.Base, by_hand={"notes"})
_CLONE: Final = Mapper(Clone, pb.Clone)
_CLONE_USAGE: Final = Mapper(CloneUsage, pb.CloneUsage)
_PROGRESS: Final = Mapper(Progress, pb.Progress)
_STATUS_ENTRY: Final = Mapper(StatusEntry, pb.StatusEntry)
_CHANGED_FILE: Final = Mapper(ChangedFile, pb.ChangedFile)


def base_to_proto(message: Progress | Base) -> pb.PrepareBaseResponse:
    """Convert progress, or the base."""
    if isinstance(message, Progress):
        return pb.PrepareBaseResponse(progress=_PROGRESS.to_proto(message))
    return pb.PrepareBaseResponse(base=BASE.to_proto(message))


def clone_to_proto(message: Progress | Clone) -> pb.CloneRepositoryResponse:
    """Convert progress, or the clone."""
    if isinstance(message, Progress):
        return pb.CloneRepositoryResponse(progress=_PROGRESS.to_proto(message))
    return pb.CloneRepositoryResponse(clone=_CLONE.to_proto(message))


def clones_page_to_proto(usages: list[CloneUsage], page: Page) -> pb.ListClonesResponse:
    """Convert one page of the clones, with the size of all."""
    after = "" if page.after is None else str(page.after[0])
    rows, token = page.cut([each for each in usages if each.clone_id > after], lambda each: (each.clone_id,))
    total = sum(each.bytes for each in usages)
    return pb.ListClonesResponse(clones=map(_CLONE_USAGE.to_proto, rows), next_page_token=token, total_bytes=total)


def push_to_proto(message: Progress | bool) -> pb.PushResponse:
    """Convert progress, or whether the branch was there already."""
    if isinstance(message, Progress):
        return pb.PushResponse(progress=_PROGRESS.to_proto(message))
    return pb.PushResponse(pushed=pb.Pushed(already_there=message))


def usage_page_to_proto(usage: DiskUsage, page: Page) -> pb.ListRepositoryUsageResponse:
    """Convert one page of repositories' usage, with the totals of all."""
    after = "" if page.after is None else str(page.after[0])
    rest = [row for row in usage.repositories if row.repository_id > after]
    rows, token = page.cut(rest, lambda row: (row.repository_id,))
    return pb.ListRepositoryUsageResponse(
        repositories=(_repository_usage_to_proto(row, usage.results.get(row.repository_id, 0)) for row in rows),
        next_page_token=token,
        total_bytes=sum(row.bytes for row in usage.repositories),
        budget_bytes=usage.budget_bytes,
        evicted_bases=usage.evicted_bases,
        evicted_mirrors=usage.evicted_mirrors,
        expired_results=usage.expired_results,
    )


def diff_to_proto(piece: bytes | DiffEnd) -> Iterator[pb.GetDiffResponse]:
    """Convert a piece of a diff, of any size, or its end."""
    if isinstance(piece, DiffEnd):
        yield pb.GetDiffResponse(
            truncated=piece.omitted_files > 0,
            omitted_files=piece.omitted_files,
            base_commit_id=piece.base_commit_id,
        )
        return
    for start in range(0, len(piece), _PIECE):
        yield pb.GetDiffResponse(data=piece[start : start + _PIECE])


def status_page_to_proto(entries: list[StatusEntry], page: Page) -> pb.GetStatusResponse:
    """Convert one page of a tree's status."""
    rows, token = page.cut(_after(entries, page), lambda entry: (_key(entry.path),))
    return pb.GetStatusResponse(entries=map(_STATUS_ENTRY.to_proto, rows), next_page_token=token, is_clean=not entries)


def taken_artifacts_to_proto(taken: TakenArtifacts) -> pb.TakeArtifactsResponse:
    """Convert what was kept, and the beginning of what was not."""
    return pb.TakeArtifactsResponse(
        artifacts=map(_ARTIFACT.to_proto, taken.artifacts),
        omitted=map(_OMITTED_ARTIFACT.to_proto, taken.omitted[:_OMISSIONS_TOLD]),
        total_omitted=len(taken.omitted),
    )


def artifacts_page_to_proto(artifacts: list[Artifact], page: Page) -> pb.ListArtifactsResponse:
    """Convert one page of artifacts."""
    after = "" if page.after is None else str(page.after[0])
    rest = [each for each in artifacts if _key(each.name.encode()) > after]
    rows, token = page.cut(rest, lambda each: (_key(each.name.encode()),))
    return pb.ListArtifactsResponse(artifacts=map(_ARTIFACT.to_proto, rows), next_page_token=token)


def changed_files_page_to_proto(
    files: list[ChangedFile], base_commit_id: str, page: Page
) -> pb.ListChangedFilesResponse:
    """Convert one page of the changed files."""
    rows, token = page.cut(_after(files, page), lambda file: (_key(file.path),))
    return pb.ListChangedFilesResponse(
        files=map(_CHANGED_FILE.to_proto, rows),
        next_page_token=token,
        total_files=len(files),
        base_commit_id=base_commit_id,
    )


def _repository_usage_to_proto(usage: RepositoryUsage, results: int) -> pb.RepositoryUsage:
    last_used = sorted(usage.bases, key=lambda base: -base.last_use)[:_BASES_TOLD]
    return pb.RepositoryUsage(
        repository_id=usage.repository_id,
        mirror_bytes=usage.mirror_bytes,
        results_bytes=usage.results_bytes,
        result_count=results,
        bases_bytes=sum(base.bytes for base in usage.bases),
        base_count=len(usage.bases),
        bases=[
            pb.BaseUsage(
                commit_id=base.commit_id,
                bytes=base.bytes,
                inodes=base.inodes,
                below_commit_id=base.below.commit_id if base.below else "",
                pins=base.pins,
                last_use_time=Timestamp(seconds=int(base.last_use)),
            )
            for base in last_used
        ],
    )


def _after(rows: list[_Row], page: Page) -> list[_Row]:
    after = page.after
    return rows if after is None else [row for row in rows if _key(row.path) > str(after[0])]


def _key(path: bytes) -> str:
    # Sorts as the bytes do, and is printable for any path.
    return path.hex()
