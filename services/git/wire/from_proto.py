"""Reads requests into the service's own types, and checks everything that can be wrong with them."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from boatyard.agent.v1 import sandbox_pb2
from boatyard.git.v1 import git_pb2 as pb
from boatyard.workspace.v1 import layout_pb2

from services.common.db.paging import Page
from services.common.errors import Invalid
from services.common.ids import ID_RULE, is_id
from services.common.text import path_from_text
from services.git.model import CloneSpec, Layers, Remote, Signature, SnapshotSpec, StartPoint, TakeSpec, WorkingTree
from services.git.names import branch_complaint, is_commit_id, revision_complaint
from services.git.paths import GitPaths
from services.git.remote.addresses import AddressBook
from services.git.worktree.signatures import without_crud
from services.sandbox.spec import Tier

Violations = list[tuple[str, str]]

_MESSAGE_BYTES: Final = 64 * 1024
_NAME_BYTES: Final = 255
_TOKEN_CHARACTERS: Final = 4096
_LATEST_SECOND: Final = 253402300799  # the end of the year 9999
_LONGEST_KEPT: Final = timedelta(days=3650)
_COMMIT_ID_RULE: Final = "must be a full commit id: 40 hexadecimal digits in lower case"

_TIERS: Final = {
    sandbox_pb2.SANDBOX_TIER_UNSPECIFIED: Tier.BUBBLEWRAP,
    sandbox_pb2.SANDBOX_TIER_BUBBLEWRAP: Tier.BUBBLEWRAP,
    sandbox_pb2.SANDBOX_TIER_NONE: Tier.NONE,
}


class RequestReader:
    """Reads requests. Every method raises Invalid, with all violations at once."""

    def __init__(self, addresses: AddressBook, paths: GitPaths) -> None:
        self._addresses = addresses
        self._paths = paths

    def prepare_base(self, request: pb.PrepareBaseRequest) -> tuple[Remote, StartPoint]:
        """Read what to start from."""
        violations = self._remote_violations(request.remote)
        if complaint := revision_complaint(request.revision.encode()):
            violations.append(("revision", complaint))
        if request.WhichOneof("commit") == "result_commit_id":
            violations += _commit_violations("result_commit_id", request.result_commit_id)
        _refuse(violations)
        return _remote_from_proto(request.remote), StartPoint(request.revision.encode(), request.result_commit_id)

    def clone(self, request: pb.CloneRepositoryRequest) -> CloneSpec:
        """Read which plain clone to make."""
        violations = _id_violations("clone_id", request.clone_id) + self._remote_violations(request.remote)
        if request.branch:
            violations += _branch_violations("branch", request.branch)
        if request.depth < 0:
            violations.append(("depth", "must not be negative"))
        _refuse(violations)
        return CloneSpec(request.clone_id, _remote_from_proto(request.remote), request.branch.encode(), request.depth)

    def tree(self, tree: pb.WorkingTree) -> WorkingTree:
        """Read a working tree."""
        _refuse(self._tree_violations(tree))
        return _tree_from_proto(tree)

    def status(self, request: pb.GetStatusRequest) -> tuple[WorkingTree, Page]:
        """Read which page of which tree's status to give."""
        violations = self._tree_violations(request.tree)
        page = _page(
            request.page_size,
            request.page_token,
            {"layout": request.tree.layout.SerializeToString(deterministic=True)},
            violations,
        )
        _refuse(violations)
        return _tree_from_proto(request.tree), page

    def create_branch(self, request: pb.CreateBranchRequest) -> tuple[WorkingTree, bytes, str]:
        """Read which branch to make, where."""
        violations = self._tree_violations(request.tree) + _branch_violations("branch", request.branch)
        if request.commit_id:
            violations += _commit_violations("commit_id", request.commit_id)
        _refuse(violations)
        return _tree_from_proto(request.tree), request.branch.encode(), request.commit_id

    def commit(self, request: pb.CommitRequest) -> tuple[WorkingTree, str, Signature]:
        """Read which tree to commit, with which message and signature."""
        violations = self._tree_violations(request.tree) + _message_violations(request.message)
        violations += _signature_violations(request.signature)
        _refuse(violations)
        return _tree_from_proto(request.tree), request.message, _signature_from_proto(request.signature)

    def take_result(self, request: pb.TakeResultRequest) -> tuple[str, str, TakeSpec]:
        """Read which tree to take, as which result of which repository."""
        violations = self._tree_violations(request.tree)
        violations += _id_violations("repository_id", request.repository_id)
        violations += _id_violations("result_id", request.result_id)
        violations += _commit_violations("base_commit_id", request.base_commit_id)
        violations += _message_violations(request.message) + _signature_violations(request.signature)
        _refuse(violations)
        signature = _signature_from_proto(request.signature)
        spec = TakeSpec(_tree_from_proto(request.tree), request.base_commit_id, request.message, signature)
        return request.repository_id, request.result_id, spec

    def snapshot_tree(self, request: pb.SnapshotTreeRequest) -> SnapshotSpec:
        """Read which tree to keep, as which snapshot of which repository."""
        violations = self._tree_violations(request.tree)
        violations += _id_violations("repository_id", request.repository_id)
        violations += _id_violations("snapshot_id", request.snapshot_id)
        violations += _commit_violations("base_commit_id", request.base_commit_id)
        violations += _message_violations(request.message)
        keep_for = request.keep_for.ToTimedelta() if request.HasField("keep_for") else None
        if keep_for is not None and not timedelta() < keep_for <= _LONGEST_KEPT:
            violations.append(("keep_for", "must be more than zero, and at most ten years"))
        _refuse(violations)
        return SnapshotSpec(
            request.snapshot_id,
            request.repository_id,
            _tree_from_proto(request.tree),
            request.base_commit_id,
            request.message,
            keep_for,
        )

    def snapshot_id(self, request: pb.GetSnapshotRequest | pb.DeleteSnapshotRequest) -> str:
        """Read which snapshot is meant."""
        _refuse(_id_violations("snapshot_id", request.snapshot_id))
        return request.snapshot_id

    def snapshots(self, request: pb.ListSnapshotsRequest) -> tuple[str, Page]:
        """Read whose snapshots to list, and which page to give."""
        violations = _id_violations("repository_id", request.repository_id) if request.repository_id else []
        page = _page(request.page_size, request.page_token, {"repository": request.repository_id}, violations)
        _refuse(violations)
        return request.repository_id, page

    def usage(self, request: pb.ListRepositoryUsageRequest) -> Page:
        """Read which page of the repositories' usage to give."""
        return Page.parse(request.page_size, request.page_token)

    def push(self, request: pb.PushRequest) -> tuple[Remote, str, bytes, str]:
        """Read what to push where."""
        violations = self._remote_violations(request.remote) + _commit_violations("commit_id", request.commit_id)
        violations += _branch_violations("branch", request.branch)
        if request.expected_commit_id:
            violations += _commit_violations("expected_commit_id", request.expected_commit_id)
        _refuse(violations)
        remote = _remote_from_proto(request.remote)
        return remote, request.commit_id, request.branch.encode(), request.expected_commit_id

    def diff(self, request: pb.GetDiffRequest) -> tuple[str, str | bytes, str, int]:
        """Read which commits to compare, and how much of it to show."""
        violations = _pair_violations(request)
        if request.max_bytes < 0:
            violations.append(("max_bytes", "must not be negative"))
        _refuse(violations)
        return request.repository_id, _diff_base(request), request.commit_id, request.max_bytes

    def changed_files(self, request: pb.ListChangedFilesRequest) -> tuple[str, str | bytes, str, Page]:
        """Read which commits to compare, and which page to give."""
        violations = _pair_violations(request)
        commits = {"base": _diff_base(request), "commit": request.commit_id}
        page = _page(request.page_size, request.page_token, commits, violations)
        _refuse(violations)
        return request.repository_id, _diff_base(request), request.commit_id, page

    def _remote_violations(self, remote: pb.Remote) -> Violations:
        violations = _id_violations("remote.repository_id", remote.repository_id)
        if complaint := self._addresses.complaint(remote.url, remote.token):
            violations.append(("remote.url", complaint))
        if len(remote.token) > _TOKEN_CHARACTERS or not remote.token.isascii() or not remote.token.isprintable():
            violations.append(("remote.token", f"must be at most {_TOKEN_CHARACTERS} printable ASCII characters"))
        return violations

    def _tree_violations(self, tree: pb.WorkingTree) -> Violations:
        violations: Violations = []
        if tree.layout.WhichOneof("kind") == "layers":
            violations += self._layers_violations(tree.layout.layers)
        elif complaint := self._paths.tree_complaint(tree.layout.path.encode()):
            violations.append(("tree.layout.path", complaint))
        for index, path in enumerate(tree.read_only_paths):
            if not self._paths.may_be_borrowed(path.encode()):
                violations.append((f"tree.read_only_paths[{index}]", "must be a path that PrepareBase returned"))
        if tree.sandbox_tier not in _TIERS:
            violations.append(("tree.sandbox_tier", "must be a tier of the contract"))
        return violations

    def _layers_violations(self, layers: layout_pb2.Layers) -> Violations:
        lowers = [
            (f"lowers[{index}]", self._paths.layer_complaint(path.encode())) for index, path in enumerate(layers.lowers)
        ]
        if not lowers:
            lowers = [("lowers", "must hold at least one path")]
        own = [("upper", layers.upper), ("work", layers.work)]
        if layers.mounted_path:
            own.append(("mounted_path", layers.mounted_path))
        trees = [(field, self._paths.tree_complaint(path.encode())) for field, path in own]
        return [(f"tree.layout.layers.{field}", complaint) for field, complaint in (*lowers, *trees) if complaint]


def _page(size: int, token: str, filters: Mapping[str, object], violations: Violations) -> Page:
    try:
        return Page.parse(size, token, filters)
    except Invalid as error:
        violations += error.violations
        return Page()


def _remote_from_proto(remote: pb.Remote) -> Remote:
    return Remote(remote.repository_id, remote.url, remote.token)


def _tree_from_proto(tree: pb.WorkingTree) -> WorkingTree:
    borrowed = tuple(map(path_from_text, tree.read_only_paths))
    tier = _TIERS[tree.sandbox_tier]
    if tree.layout.WhichOneof("kind") != "layers":
        return WorkingTree(path_from_text(tree.layout.path), borrowed, tier)
    message = tree.layout.layers
    mounted = path_from_text(message.mounted_path) if message.mounted_path else None
    layers = Layers(
        tuple(map(path_from_text, message.lowers)), path_from_text(message.upper), path_from_text(message.work), mounted
    )
    return WorkingTree(layers.mounted_path or layers.upper, borrowed, tier, layers)


def _signature_from_proto(signature: pb.Signature) -> Signature:
    return Signature(signature.name, signature.email, signature.time.seconds)


def _pair_violations(request: pb.GetDiffRequest | pb.ListChangedFilesRequest) -> Violations:
    violations = _id_violations("repository_id", request.repository_id)
    if request.WhichOneof("base") == "base_branch":
        violations += _branch_violations("base_branch", request.base_branch)
    else:
        violations += _commit_violations("base_commit_id", request.base_commit_id)
    return violations + _commit_violations("commit_id", request.commit_id)


def _diff_base(request: pb.GetDiffRequest | pb.ListChangedFilesRequest) -> str | bytes:
    return request.base_branch.encode() if request.WhichOneof("base") == "base_branch" else request.base_commit_id


def _id_violations(field: str, value: str) -> Violations:
    if not value:
        return [(field, "is required")]
    return [] if is_id(value) else [(field, f"must be {ID_RULE}")]


def _commit_violations(field: str, value: str) -> Violations:
    if not value:
        return [(field, "is required")]
    return [] if is_commit_id(value) else [(field, _COMMIT_ID_RULE)]


def _branch_violations(field: str, value: str) -> Violations:
    complaint = branch_complaint(value.encode())
    return [(field, complaint)] if complaint else []


def _message_violations(message: str) -> Violations:
    if not message.strip():
        return [("message", "is required")]
    if len(message.encode()) > _MESSAGE_BYTES or "\0" in message:
        return [("message", "must be at most 64 KiB, without NUL characters")]
    return []


def _signature_violations(signature: pb.Signature) -> Violations:
    violations: Violations = []
    for field, value in (("signature.name", signature.name), ("signature.email", signature.email)):
        if not without_crud(value):
            violations.append((field, "is required, and must hold more than punctuation"))
        elif len(value.encode()) > _NAME_BYTES or any(c in value for c in "<>\n\r\0"):
            violations.append((field, f"must be at most {_NAME_BYTES} bytes, without line breaks or angle brackets"))
    if not signature.HasField("time"):
        violations.append(("signature.time", "is required"))
    elif not 0 <= signature.time.seconds <= _LATEST_SECOND:
        violations.append(("signature.time", "must be between 1970 and 9999"))
    return violations


def _refuse(violations: Violations) -> None:
    if violations:
        raise Invalid(violations)
