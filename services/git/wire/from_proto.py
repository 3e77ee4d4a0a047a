"""Reads requests, which have been held to the rules, into the service's own types."""

from typing import Final

from boatyard.agent.v1 import sandbox_pb2
from boatyard.git.v1 import git_pb2 as pb

from services.common.db.paging import Page
from services.common.text import path_from_text
from services.git.model import (
    CloneSpec,
    Layers,
    Remote,
    Signature,
    SnapshotSpec,
    StartPoint,
    TakeSpec,
    TreeOrigin,
    WorkingTree,
)
from services.redaction.strand import Redactor
from services.sandbox.spec import Tier

_TIERS: Final = {
    sandbox_pb2.SANDBOX_TIER_UNSPECIFIED: Tier.BUBBLEWRAP,
    sandbox_pb2.SANDBOX_TIER_BUBBLEWRAP: Tier.BUBBLEWRAP,
    sandbox_pb2.SANDBOX_TIER_NONE: Tier.NONE,
}


def prepare_base(request: pb.PrepareBaseRequest) -> tuple[Remote, StartPoint]:
    """Read what to start from."""
    start = StartPoint(request.revision.encode(), request.result_commit_id, request.snapshot_id, request.git_lfs)
    return read_remote(request.remote), start


def clone(request: pb.CloneRepositoryRequest) -> CloneSpec:
    """Read which plain clone to make."""
    return CloneSpec(request.clone_id, read_remote(request.remote), request.branch.encode(), request.depth)


def tree(message: pb.WorkingTree) -> WorkingTree:
    """Read a working tree."""
    borrowed = tuple(map(path_from_text, message.read_only_paths))
    tier = _TIERS[message.sandbox_tier]
    if message.layout.WhichOneof("kind") != "layers":
        return WorkingTree(path_from_text(message.layout.path), borrowed, tier)
    stacked = message.layout.layers
    mounted = path_from_text(stacked.mounted_path) if stacked.mounted_path else None
    layers = Layers(
        tuple(map(path_from_text, stacked.lowers)), path_from_text(stacked.upper), path_from_text(stacked.work), mounted
    )
    return WorkingTree(layers.mounted_path or layers.upper, borrowed, tier, layers)


def status(request: pb.GetStatusRequest) -> tuple[WorkingTree, Page]:
    """Read which page of which tree's status to give. Raises Invalid when the page's token is not for it."""
    filters = {"layout": request.tree.layout.SerializeToString(deterministic=True)}
    return tree(request.tree), Page.parse(request.page_size, request.page_token, filters)


def create_branch(request: pb.CreateBranchRequest) -> tuple[WorkingTree, bytes, str]:
    """Read which branch to make, where."""
    return tree(request.tree), request.branch.encode(), request.commit_id


def stage_all(request: pb.StageAllRequest) -> tuple[WorkingTree, tuple[str, ...]]:
    """Read what of which tree to stage: all but these."""
    return tree(request.tree), tuple(request.leave_out)


def commit(request: pb.CommitRequest) -> tuple[WorkingTree, str, Signature]:
    """Read which tree to commit, with which message and signature."""
    return tree(request.tree), request.message, _signature(request.signature)


def take_result(request: pb.TakeResultRequest) -> tuple[str, str, TakeSpec, Remote | None]:
    """Read which tree to take, as which result of which repository, and what that is elsewhere."""
    signature, leave_out = _signature(request.signature), tuple(request.leave_out)
    spec = TakeSpec(
        tree(request.tree),
        request.base_commit_id,
        request.message,
        signature,
        leave_out=leave_out,
        git_lfs=request.git_lfs,
    )
    remote = read_remote(request.remote) if request.HasField("remote") else None
    return request.repository_id, request.result_id, spec, remote


def snapshot(request: pb.SnapshotTreeRequest) -> SnapshotSpec:
    """Read which tree to keep, as which snapshot of which repository."""
    return SnapshotSpec(
        request.snapshot_id,
        request.repository_id,
        tree(request.tree),
        request.base_commit_id,
        request.message,
        request.keep_for.ToTimedelta() if request.HasField("keep_for") else None,
        tuple(request.leave_out),
        request.git_lfs,
    )


def snapshots(request: pb.ListSnapshotsRequest) -> tuple[str, Page]:
    """Read whose snapshots to list, and which page to give. Raises Invalid when the page's token is not for them."""
    filters = {"repository": request.repository_id}
    return request.repository_id, Page.parse(request.page_size, request.page_token, filters)


def take_artifacts(
    request: pb.TakeArtifactsRequest,
) -> tuple[str, WorkingTree, list[str], Redactor, TreeOrigin | None]:
    """Read which files of which tree to keep, under which id, what must not be in them, and what the tree began as."""
    redactor = Redactor({name: value.encode() for name, value in request.redacted.items()}, finds_tokens=False)
    origin = TreeOrigin(request.repository_id, request.base_commit_id, tuple(request.leave_out))
    patterns = list(request.patterns)
    return request.artifacts_id, tree(request.tree), patterns, redactor, origin if origin.commit_id else None


def artifacts(request: pb.ListArtifactsRequest) -> tuple[str, Page]:
    """Read which artifacts to list, and which page to give. Raises Invalid when the page's token is not for them."""
    return request.artifacts_id, Page.parse(request.page_size, request.page_token, {"artifacts": request.artifacts_id})


def read_artifact(request: pb.ReadArtifactRequest) -> tuple[str, str, int, int]:
    """Read which artifact to read, from where, and how much of it."""
    return request.artifacts_id, request.name, request.offset, request.max_bytes


def clones(request: pb.ListClonesRequest) -> Page:
    """Read which page of the clones to give. Raises Invalid."""
    return Page.parse(request.page_size, request.page_token)


def usage(request: pb.ListRepositoryUsageRequest) -> Page:
    """Read which page of the repositories' usage to give. Raises Invalid."""
    return Page.parse(request.page_size, request.page_token)


def push(request: pb.PushRequest) -> tuple[tuple[Remote, str, bytes, str], WorkingTree | None]:
    """Read what to push where, and from which tree."""
    what = read_remote(request.remote), request.commit_id, request.branch.encode(), request.expected_commit_id
    return what, tree(request.tree) if request.HasField("tree") else None


def check_push(request: pb.CheckPushRequest) -> tuple[Remote, str, bytes, frozenset[str]]:
    """Read which branch, of which remote, is to be free."""
    return (
        read_remote(request.remote),
        request.commit_id,
        request.branch.encode(),
        frozenset(request.allowed_commit_ids),
    )


def diff(request: pb.GetDiffRequest) -> tuple[str, str | bytes, str, int]:
    """Read which commits to compare, and how much of it to show."""
    return request.repository_id, _diff_base(request), request.commit_id, request.max_bytes


def changed_files(request: pb.ListChangedFilesRequest) -> tuple[str, str | bytes, str, Page]:
    """Read which commits to compare, and which page to give. Raises Invalid when the page's token is not for them."""
    base = _diff_base(request)
    filters = {"base": base, "commit": request.commit_id}
    if request.patterns:
        filters["patterns"] = "\0".join(request.patterns)
    page = Page.parse(request.page_size, request.page_token, filters)
    return request.repository_id, base, request.commit_id, page


def read_remote(remote: pb.Remote) -> Remote:
    """Read a remote."""
    return Remote(remote.repository_id, remote.url, remote.token, remote.ca, tuple(remote.push_options))


def _signature(signature: pb.Signature) -> Signature:
    return Signature(signature.name, signature.email, signature.time.seconds)


def _diff_base(request: pb.GetDiffRequest | pb.ListChangedFilesRequest) -> str | bytes:
    return request.base_branch.encode() if request.WhichOneof("base") == "base_branch" else request.base_commit_id
