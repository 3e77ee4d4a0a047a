"""The git service's rules for messages as a whole: what may be read and written depends on its settings."""

from collections.abc import Iterable, Iterator, Mapping

from boatyard.git.v1 import git_pb2 as pb
from boatyard.workspace.v1 import layout_pb2

from services.common.credentials import ca_complaint, credential_complaint
from services.common.ids import NO_REMOTE
from services.common.rpc.rules import Check, Violation
from services.git.paths import GitPaths
from services.git.remote.addresses import AddressBook
from services.git.worktree.signatures import without_crud


def checks(addresses: AddressBook, paths: GitPaths) -> Mapping[str, Check]:
    """Return the rules, by the full names of the messages that they are for."""

    def remote(message: pb.Remote) -> Iterator[Violation]:
        if message.repository_id.startswith(NO_REMOTE):
            yield "repository_id", f"must not begin with {NO_REMOTE}: such are for work without a remote"
        if complaint := addresses.complaint(message.url):
            yield "url", complaint
            return
        protocol = addresses.address(message.url).protocol
        complaints = {"token": credential_complaint(message.token, protocol), "ca": ca_complaint(message.ca, protocol)}
        yield from ((field, complaint) for field, complaint in complaints.items() if complaint)

    def working_tree(message: pb.WorkingTree) -> Iterator[Violation]:
        for field, complaint in _layout_complaints(message.layout, paths):
            if complaint:
                yield f"layout.{field}", complaint
        for index, path in enumerate(message.read_only_paths):
            if not paths.may_be_borrowed(path.encode()):
                yield f"read_only_paths[{index}]", "must be a path that PrepareBase returned"

    return {
        pb.Remote.DESCRIPTOR.full_name: remote,
        pb.PrepareEmptyBaseRequest.DESCRIPTOR.full_name: _empty_base,
        pb.WorkingTree.DESCRIPTOR.full_name: working_tree,
        pb.Signature.DESCRIPTOR.full_name: _signature,
        pb.GetDiffRequest.DESCRIPTOR.full_name: _diff,
    }


def _layout_complaints(layout: layout_pb2.Layout, paths: GitPaths) -> Iterable[tuple[str, str | None]]:
    match layout.WhichOneof("kind"):
        case "path":
            yield "path", paths.tree_complaint(layout.path.encode())
        case "layers":
            layers = layout.layers
            for index, path in enumerate(layers.lowers):
                yield f"layers.lowers[{index}]", paths.layer_complaint(path.encode())
            yield "layers.upper", paths.tree_complaint(layers.upper.encode())
            yield "layers.work", paths.tree_complaint(layers.work.encode())
            if layers.mounted_path:
                yield "layers.mounted_path", paths.tree_complaint(layers.mounted_path.encode())


def _empty_base(message: pb.PrepareEmptyBaseRequest) -> Iterator[Violation]:
    if not message.repository_id.startswith(NO_REMOTE):
        yield "repository_id", f"must begin with {NO_REMOTE}: others are repositories"


def _diff(message: pb.GetDiffRequest) -> Iterator[Violation]:
    of_commits = {
        "repository_id": message.repository_id,
        "base": message.WhichOneof("base"),
        "commit_id": message.commit_id,
    }
    if message.HasField("tree"):
        yield from ((field, "must not be set beside a tree") for field, value in of_commits.items() if value)
    else:
        yield from ((field, "is required without a tree") for field, value in of_commits.items() if not value)


def _signature(message: pb.Signature) -> Iterator[Violation]:
    for field, value in (("name", message.name), ("email", message.email)):
        if not without_crud(value):
            yield field, "must have more than punctuation"
