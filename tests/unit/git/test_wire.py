"""Bad requests are refused with every violation at once, before anything is done."""

from dataclasses import replace
from pathlib import Path

import pytest
from boatyard.execution.v1 import sandbox_pb2
from boatyard.git.v1 import git_pb2 as pb
from boatyard.workspace.v1 import layout_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from services.common.db.paging import Page
from services.common.errors import Invalid
from services.common.settings import Home
from services.git import wire
from services.git.model import DiffEnd, Layers, Progress, Signature, StatusEntry, WorkingTree
from services.git.places import Places
from services.git.remotes import AddressBook
from services.git.requests import Requests
from services.sandbox.spec import Tier

COMMIT = "0123456789" * 4


@pytest.fixture
def requests(tmp_path: Path) -> Requests:
    home = Home(tmp_path / "home")
    return Requests(AddressBook((tmp_path,), home.root), Places(home))


def tree(requests: Requests, tmp_path: Path) -> pb.WorkingTree:
    objects = tmp_path / "home" / "git" / "mirrors" / "repo-1.git" / "objects"
    path = tmp_path / "home" / "workspace" / "trees" / "w" / "tree"
    return pb.WorkingTree(layout=layout_pb2.Layout(path=bytes(path)), read_only_paths=[bytes(objects)])


def fields(call, request: object) -> set[str]:
    with pytest.raises(Invalid) as failure:
        call(request)
    return {field for field, _ in failure.value.violations}


def test_an_empty_request_names_all_that_is_missing(requests: Requests) -> None:
    assert fields(requests.prepare_base, pb.PrepareBaseRequest()) == {"remote.repository_id", "remote.url"}
    assert fields(requests.clone, pb.CloneRepositoryRequest()) == {"clone_id", "remote.repository_id", "remote.url"}
    assert fields(requests.create_branch, pb.CreateBranchRequest()) == {"tree.layout.path", "branch"}
    signature = {"signature.name", "signature.email", "signature.time"}
    assert fields(requests.commit, pb.CommitRequest()) == {"tree.layout.path", "message", *signature}
    assert fields(requests.take_result, pb.TakeResultRequest()) == {
        "tree.layout.path", "repository_id", "result_id", "base_commit_id", "message", *signature,
    }  # fmt: skip
    assert fields(requests.push, pb.PushRequest()) == {"remote.repository_id", "remote.url", "commit_id", "branch"}
    assert fields(requests.diff, pb.GetDiffRequest()) == {"repository_id", "base_commit_id", "commit_id"}
    assert fields(requests.changed_files, pb.ListChangedFilesRequest(page_size=-1, page_token="?")) == {
        "repository_id", "base_commit_id", "commit_id", "page_size", "page_token",
    }  # fmt: skip


def test_a_tree_is_read(requests: Requests, tmp_path: Path) -> None:
    message = tree(requests, tmp_path)
    assert requests.tree(message) == WorkingTree(
        tmp_path / "home/workspace/trees/w/tree", (tmp_path / "home/git/mirrors/repo-1.git/objects",), Tier.BUBBLEWRAP
    )
    message.sandbox_tier = sandbox_pb2.SANDBOX_TIER_NONE
    assert requests.tree(message).tier is Tier.NONE


@pytest.mark.parametrize(
    "path", ["", "home", "home/git", "home/git/results/r.git", "home/workspace/trees", "home/gateway"]
)
def test_no_tree_is_ours(requests: Requests, tmp_path: Path, path: str) -> None:
    message = pb.WorkingTree(layout=layout_pb2.Layout(path=bytes(tmp_path / path)))
    assert fields(requests.tree, message) == {"tree.layout.path"}


@pytest.mark.parametrize("path", ["/", "/etc", "results/r.git/objects", "mirrors/r.git", "mirrors/../results/objects"])
def test_nothing_is_borrowed_but_mirrors(requests: Requests, tmp_path: Path, path: str) -> None:
    message = tree(requests, tmp_path)
    message.read_only_paths.append(bytes(tmp_path / "home" / "git" / path))
    assert fields(requests.tree, message) == {"tree.read_only_paths[1]"}


def layered(tmp_path: Path, **told: object) -> pb.WorkingTree:
    git, workspace = tmp_path / "home" / "git", tmp_path / "home" / "workspace" / "trees" / "w"
    layers = {
        "lowers": [bytes(git / "bases" / "repo-1" / COMMIT / "tree")],
        "upper": bytes(workspace / "upper"),
        "work": bytes(workspace / "work"),
    }
    return pb.WorkingTree(layout=layout_pb2.Layout(layers=layout_pb2.Layers(**layers | told)))


def test_layers_are_read(requests: Requests, tmp_path: Path) -> None:
    home = tmp_path / "home"
    lowers, trees = (home / "git/bases/repo-1" / COMMIT / "tree",), home / "workspace/trees/w"
    stacked = Layers(lowers, trees / "upper", trees / "work")
    assert requests.tree(layered(tmp_path)) == WorkingTree(trees / "upper", layers=stacked)
    mounted = requests.tree(layered(tmp_path, mounted_path=bytes(trees / "tree")))
    assert (mounted.path, mounted.layers) == (trees / "tree", replace(stacked, mounted_path=trees / "tree"))


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("lowers", [], "lowers"),
        ("lowers", [b""], "lowers[0]"),
        ("lowers", ["git/results/repo-1.git"], "lowers[0]"),
        ("lowers", ["git/bases/../results/tree"], "lowers[0]"),
        ("lowers", ["git/bases/repo-1/c/tree", "gateway"], "lowers[1]"),
        ("upper", "git/bases/repo-1/c/tree", "upper"),
        ("upper", "workspace/trees", "upper"),
        ("work", "git", "work"),
        ("mounted_path", "git/mirrors", "mounted_path"),
    ],
)
def test_layers_never_lead_to_what_is_ours(
    requests: Requests, tmp_path: Path, field: str, value: object, named: str
) -> None:
    def inside(path: str | bytes) -> bytes:
        return bytes(tmp_path / "home" / path) if isinstance(path, str) else path

    told = [inside(path) for path in value] if isinstance(value, list) else inside(str(value))
    assert fields(requests.tree, layered(tmp_path, **{field: told})) == {f"tree.layout.layers.{named}"}


@pytest.mark.parametrize(
    ("name", "seconds", "wrong"),
    [
        ("Ada", 5, set()),
        ("...", 5, {"signature.name"}),
        ("A\nb", 5, {"signature.name"}),
        ("A <b>", 5, {"signature.name"}),
        ("A" * 256, 5, {"signature.name"}),
        ("Ada", -1, {"signature.time"}),
    ],
)
def test_signatures(requests: Requests, tmp_path: Path, name: str, seconds: int, wrong: set[str]) -> None:
    signature = pb.Signature(name=name, email="a@b", time=Timestamp(seconds=seconds))
    request = pb.CommitRequest(tree=tree(requests, tmp_path), message="m", signature=signature)
    if wrong:
        assert fields(requests.commit, request) == wrong
    else:
        assert requests.commit(request)[2] == Signature(name, "a@b", seconds)


@pytest.mark.parametrize("message", [" \n", "a" * 65537, "a\0b"])
def test_messages(requests: Requests, tmp_path: Path, message: str) -> None:
    signature = pb.Signature(name="a", email="a@b", time=Timestamp(seconds=1))
    request = pb.CommitRequest(tree=tree(requests, tmp_path), message=message, signature=signature)
    assert fields(requests.commit, request) == {"message"}


def test_an_unprintable_token_is_refused(requests: Requests) -> None:
    remote = pb.Remote(repository_id="r", url="https://example.com/x", token="a\nHeader: b")
    assert fields(requests.prepare_base, pb.PrepareBaseRequest(remote=remote)) == {"remote.token"}


def test_progress_without_a_percentage_has_none() -> None:
    assert not wire.base_message(Progress("Resolving deltas")).progress.HasField("percent")
    assert wire.base_message(Progress("Resolving deltas", 0)).progress.HasField("percent")


def test_a_diff_comes_in_pieces() -> None:
    sizes = [len(message.data) for message in wire.diff_messages(b"x" * 150_000)]
    assert sizes == [65536, 65536, 18928]
    (end,) = wire.diff_messages(DiffEnd(3))
    assert (end.truncated, end.omitted_files) == (True, 3)


@given(st.sets(st.binary(min_size=1).filter(lambda path: b"\0" not in path), max_size=12), st.integers(1, 5))
def test_pages_hold_every_path_once(paths: set[bytes], size: int) -> None:
    entries = [StatusEntry(path, ".", "M") for path in sorted(paths)]
    seen: list[bytes] = []
    token = ""
    while True:
        answer = wire.status_page(entries, Page.parse(size, token))
        seen += [entry.path for entry in answer.entries]
        token = answer.next_page_token
        if not token:
            break
    assert seen == sorted(paths)
