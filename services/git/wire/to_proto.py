"""Writes the service's own types as the contract's messages; `from_proto` is the other direction."""

from collections.abc import Iterator
from typing import Final, TypeVar

from boatyard.git.v1 import git_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

from services.common.db.paging import Page
from services.common.text import is_utf8, lossy, path_to_text, raw, raw_list
from services.git.disk.budget import DiskUsage, RepositoryUsage
from services.git.model import (
    Base,
    BaseNote,
    ChangedFile,
    ChangeKind,
    Clone,
    DiffEnd,
    Head,
    NoteKind,
    Progress,
    ResultCommit,
    Snapshot,
    StatusEntry,
)

_Row = TypeVar("_Row", StatusEntry, ChangedFile)

_PIECE: Final = 64 * 1024
_BASES_TOLD: Final = 100

_NOTES: Final = {
    NoteKind.SUBMODULES: pb.BaseNote.KIND_SUBMODULES,
    NoteKind.LFS_POINTERS: pb.BaseNote.KIND_LFS_POINTERS,
}
_CHANGES: Final = {
    ChangeKind.ADDED: pb.ChangedFile.CHANGE_ADDED,
    ChangeKind.MODIFIED: pb.ChangedFile.CHANGE_MODIFIED,
    ChangeKind.DELETED: pb.ChangedFile.CHANGE_DELETED,
    ChangeKind.RENAMED: pb.ChangedFile.CHANGE_RENAMED,
    ChangeKind.TYPE: pb.ChangedFile.CHANGE_TYPE,
}


def base_to_proto(message: Progress | Base) -> pb.PrepareBaseResponse:
    """Convert progress, or the base."""
    if isinstance(message, Progress):
        return pb.PrepareBaseResponse(progress=_progress_to_proto(message))
    return pb.PrepareBaseResponse(
        base=pb.Base(
            commit_id=message.commit_id,
            layers=[path_to_text(path) for path in message.layers],
            read_only_paths=[path_to_text(path) for path in message.read_only_paths],
            branch=lossy(message.branch),
            branch_is_lossy=not is_utf8(message.branch),
            pins_path=path_to_text(message.pins_path),
            notes=[_note_to_proto(note) for note in message.notes],
        )
    )


def head_to_proto(head: Head) -> pb.GetCurrentBranchResponse:
    """Convert what HEAD is."""
    return pb.GetCurrentBranchResponse(
        branch=lossy(head.branch), branch_is_lossy=not is_utf8(head.branch), commit_id=head.commit_id
    )


def clone_to_proto(message: Progress | Clone) -> pb.CloneRepositoryResponse:
    """Convert progress, or the clone."""
    if isinstance(message, Progress):
        return pb.CloneRepositoryResponse(progress=_progress_to_proto(message))
    clone = pb.Clone(path=path_to_text(message.path), commit_id=message.commit_id)
    return pb.CloneRepositoryResponse(clone=clone)


def push_to_proto(message: Progress | bool) -> pb.PushResponse:
    """Convert progress, or whether the branch was there already."""
    if isinstance(message, Progress):
        return pb.PushResponse(progress=_progress_to_proto(message))
    return pb.PushResponse(pushed=pb.Pushed(already_there=message))


def result_to_proto(result: ResultCommit) -> pb.TakeResultResponse:
    """Convert a result."""
    return pb.TakeResultResponse(
        commit_id=result.commit_id,
        changed=result.changed,
        agent_commits=result.agent_commits,
        lost_repositories=map(lossy, result.lost_repositories),
        raw_lost_repositories=raw_list(result.lost_repositories),
    )


def snapshot_to_proto(snapshot: Snapshot) -> pb.Snapshot:
    """Convert a snapshot."""
    message = pb.Snapshot(
        snapshot_id=snapshot.snapshot_id,
        repository_id=snapshot.repository_id,
        base_commit_id=snapshot.base_commit_id,
        commit_id=snapshot.commit_id,
        message=snapshot.message,
    )
    message.create_time.FromDatetime(snapshot.create_time)
    message.expire_time.FromDatetime(snapshot.expire_time)
    return message


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
    described = [
        pb.StatusEntry(
            path=lossy(row.path),
            raw_path=raw(row.path),
            index=row.index,
            worktree=row.worktree,
            old_path=lossy(row.old_path),
            raw_old_path=raw(row.old_path),
        )
        for row in rows
    ]
    return pb.GetStatusResponse(entries=described, next_page_token=token, is_clean=not entries)


def changed_files_page_to_proto(
    files: list[ChangedFile], base_commit_id: str, page: Page
) -> pb.ListChangedFilesResponse:
    """Convert one page of the changed files."""
    rows, token = page.cut(_after(files, page), lambda file: (_key(file.path),))
    described = [
        pb.ChangedFile(
            path=lossy(row.path),
            raw_path=raw(row.path),
            change=_CHANGES[row.change],
            old_path=lossy(row.old_path),
            raw_old_path=raw(row.old_path),
            additions=row.additions,
            deletions=row.deletions,
        )
        for row in rows
    ]
    return pb.ListChangedFilesResponse(
        files=described, next_page_token=token, total_files=len(files), base_commit_id=base_commit_id
    )


def _note_to_proto(note: BaseNote) -> pb.BaseNote:
    return pb.BaseNote(
        kind=_NOTES[note.kind],
        paths=map(lossy, note.paths),
        raw_paths=raw_list(note.paths),
        total_paths=note.total,
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


def _progress_to_proto(progress: Progress) -> pb.Progress:
    return pb.Progress(phase=progress.phase, percent=progress.percent)


def _after(rows: list[_Row], page: Page) -> list[_Row]:
    after = page.after
    return rows if after is None else [row for row in rows if _key(row.path) > str(after[0])]


def _key(path: bytes) -> str:
    # Sorts as the bytes do, and is printable for any path.
    return path.hex()
