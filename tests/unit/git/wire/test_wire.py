"""Bad requests are refused with every violation at once, before anything is done."""

from dataclasses import replace
from pathlib import Path

import pytest
from boatyard.agent.v1 import sandbox_pb2
from boatyard.git.v1 import git_pb2 as pb
from boatyard.workspace.v1 import layout_pb2
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from services.common.caveats import CaveatKind
from services.common.db.paging import Page
from services.common.home import Home
from services.common.rpc.rules import Rules
from services.git.model import (
    Base,
    Caveat,
    ChangedFile,
    ChangeKind,
    DiffEnd,
    Head,
    Layers,
    Progress,
    ResultCommit,
    Signature,
    StatusEntry,
    WorkingTree,
)
from services.git.paths import GitPaths
from services.git.remote.addresses import AddressBook
from services.git.remote.file_repository import FileRoots
from services.git.wire import from_proto, to_proto
from services.git.wire.checks import checks
from services.sandbox.spec import Tier

COMMIT = "0123456789" * 4


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    home = Home(tmp_path / "home")
    return Rules(checks(AddressBook(FileRoots((tmp_path,), (), home.root)), GitPaths(home)))


def tree(tmp_path: Path) -> pb.WorkingTree:
    objects = tmp_path / "home" / "git" / "mirrors" / "repo-1.git" / "objects"
    path = tmp_path / "home" / "workspace" / "trees" / "w" / "tree"
    return pb.WorkingTree(layout=layout_pb2.Layout(path=str(path)), read_only_paths=[str(objects)])


def fields(rules: Rules, request: Message) -> set[str]:
    return {field for field, _ in rules.violations(request)}


def test_an_empty_request_names_all_that_is_missing(rules: Rules) -> None:
    assert fields(rules, pb.PrepareBaseRequest()) == {"remote"}
    assert fields(rules, pb.PrepareBaseRequest(remote={})) == {"remote.repository_id", "remote.url"}
    assert fields(rules, pb.CloneRepositoryRequest()) == {"clone_id", "remote"}
    assert fields(rules, pb.CreateBranchRequest()) == {"tree", "branch"}
    assert fields(rules, pb.CreateBranchRequest(tree={"layout": {}}, branch="b")) == {"tree.layout.kind"}
    assert fields(rules, pb.CommitRequest(signature={})) == {
        "tree", "message", "signature.name", "signature.email", "signature.time",
    }  # fmt: skip
    assert fields(rules, pb.TakeResultRequest()) == {
        "tree", "repository_id", "result_id", "base_commit_id", "message", "signature",
    }  # fmt: skip
    assert fields(rules, pb.PushRequest()) == {"remote", "commit_id", "branch"}
    assert fields(rules, pb.GetDiffRequest()) == {"repository_id", "base", "commit_id"}
    assert fields(rules, pb.ListChangedFilesRequest(page_size=-1, base_commit_id="")) == {
        "repository_id", "base_commit_id", "commit_id", "page_size",
    }  # fmt: skip


def test_a_tree_is_read(rules: Rules, tmp_path: Path) -> None:
    message = tree(tmp_path)
    assert from_proto.tree(message) == WorkingTree(
        tmp_path / "home/workspace/trees/w/tree", (tmp_path / "home/git/mirrors/repo-1.git/objects",), Tier.BUBBLEWRAP
    )
    message.sandbox_tier = sandbox_pb2.SANDBOX_TIER_NONE
    assert from_proto.tree(message).tier is Tier.NONE


@pytest.mark.parametrize(
    "path", ["", "home", "home/git", "home/git/results/r.git", "home/workspace/trees", "home/gateway"]
)
def test_no_tree_is_ours(rules: Rules, tmp_path: Path, path: str) -> None:
    message = pb.WorkingTree(layout=layout_pb2.Layout(path=str(tmp_path / path)))
    assert fields(rules, message) == {"layout.path"}


@pytest.mark.parametrize("path", ["/", "/etc", "results/r.git/objects", "mirrors/r.git", "mirrors/../results/objects"])
def test_nothing_is_borrowed_but_mirrors(rules: Rules, tmp_path: Path, path: str) -> None:
    message = tree(tmp_path)
    message.read_only_paths.append(str(tmp_path / "home" / "git" / path))
    assert fields(rules, message) == {"read_only_paths[1]"}


def layered(tmp_path: Path, **given: object) -> pb.WorkingTree:
    git, workspace = tmp_path / "home" / "git", tmp_path / "home" / "workspace" / "trees" / "w"
    layers = {
        "lowers": [str(git / "bases" / "repo-1" / COMMIT / "tree")],
        "upper": str(workspace / "upper"),
        "work": str(workspace / "work"),
    }
    return pb.WorkingTree(layout=layout_pb2.Layout(layers=layout_pb2.Layers(**layers | given)))


def test_layers_are_read(rules: Rules, tmp_path: Path) -> None:
    home = tmp_path / "home"
    lowers, trees = (home / "git/bases/repo-1" / COMMIT / "tree",), home / "workspace/trees/w"
    stacked = Layers(lowers, trees / "upper", trees / "work")
    assert from_proto.tree(layered(tmp_path)) == WorkingTree(trees / "upper", layers=stacked)
    mounted = from_proto.tree(layered(tmp_path, mounted_path=str(trees / "tree")))
    assert (mounted.path, mounted.layers) == (trees / "tree", replace(stacked, mounted_path=trees / "tree"))


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("lowers", [], "lowers"),
        ("lowers", [""], "lowers[0]"),
        ("lowers", ["git/results/repo-1.git"], "lowers[0]"),
        ("lowers", ["git/bases/../results/tree"], "lowers[0]"),
        ("lowers", ["git/bases/repo-1/c/tree", "gateway"], "lowers[1]"),
        ("upper", "git/bases/repo-1/c/tree", "upper"),
        ("upper", "workspace/trees", "upper"),
        ("work", "git", "work"),
        ("mounted_path", "git/mirrors", "mounted_path"),
    ],
)
def test_layers_never_lead_to_what_is_ours(rules: Rules, tmp_path: Path, field: str, value: object, named: str) -> None:
    def inside(path: str) -> str:
        return str(tmp_path / "home" / path) if path else ""

    given = [inside(path) for path in value] if isinstance(value, list) else inside(str(value))
    assert fields(rules, layered(tmp_path, **{field: given})) == {f"layout.layers.{named}"}


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
def test_signatures(rules: Rules, tmp_path: Path, name: str, seconds: int, wrong: set[str]) -> None:
    signature = pb.Signature(name=name, email="a@b", time=Timestamp(seconds=seconds))
    request = pb.CommitRequest(tree=tree(tmp_path), message="m", signature=signature)
    assert fields(rules, request) == wrong
    if not wrong:
        assert from_proto.commit(request)[2] == Signature(name, "a@b", seconds)


@pytest.mark.parametrize("message", [" \n", "a" * 65537, "a\0b"])
def test_messages(rules: Rules, tmp_path: Path, message: str) -> None:
    signature = pb.Signature(name="a", email="a@b", time=Timestamp(seconds=1))
    request = pb.CommitRequest(tree=tree(tmp_path), message=message, signature=signature)
    assert fields(rules, request) == {"message"}


def test_an_unprintable_token_is_refused(rules: Rules) -> None:
    remote = pb.Remote(repository_id="r", url="https://example.com/x", token="a\nHeader: b")
    assert fields(rules, pb.PrepareBaseRequest(remote=remote)) == {"remote.token"}


def test_progress_without_a_percentage_has_none() -> None:
    assert not to_proto.base_to_proto(Progress("Resolving deltas")).progress.HasField("percent")
    assert to_proto.base_to_proto(Progress("Resolving deltas", 0)).progress.HasField("percent")


def test_paths_that_are_not_utf_8_are_lossy_with_their_bytes_beside_them() -> None:
    entries = [StatusEntry(b"a\xff", "R", ".", b"\xfe"), StatusEntry("\u00fc".encode(), ".", "M")]
    odd, plain = to_proto.status_page_to_proto(entries, Page()).entries
    assert (odd.path, odd.raw_path, odd.old_path, odd.raw_old_path) == ("a\ufffd", b"a\xff", "\ufffd", b"\xfe")
    assert (plain.path, plain.raw_path, plain.old_path, plain.raw_old_path) == ("\u00fc", b"", "", b"")

    files = [ChangedFile(b"a\xff", ChangeKind.RENAMED, b"\xfe"), ChangedFile(b"b", ChangeKind.ADDED)]
    odd, plain = to_proto.changed_files_page_to_proto(files, COMMIT, Page()).files
    assert (odd.path, odd.raw_path, odd.old_path, odd.raw_old_path) == ("a\ufffd", b"a\xff", "\ufffd", b"\xfe")
    assert (plain.path, plain.raw_path) == ("b", b"")

    caveat = Caveat(CaveatKind.UNREADABLE, (b"ok", b"n\xff"), 2)
    (odd,) = to_proto.RESULT.to_proto(ResultCommit(COMMIT, True, 0, (caveat,))).caveats
    assert (list(odd.paths), list(odd.raw_paths)) == (["ok", "n\ufffd"], [b"", b"n\xff"])
    (plain,) = to_proto.RESULT.to_proto(ResultCommit(COMMIT, True, 0, (replace(caveat, paths=(b"ok",)),))).caveats
    assert not plain.raw_paths


def test_a_reported_branch_that_is_not_utf_8_says_so() -> None:
    head = to_proto.HEAD.to_proto(Head(b"b\xff", COMMIT))
    assert (head.branch, head.branch_is_lossy) == ("b\ufffd", True)
    assert not to_proto.HEAD.to_proto(Head(b"main", COMMIT)).branch_is_lossy
    caveats = (Caveat(CaveatKind.EMPTY_SUBMODULES, (b"s\xff",), 1),)
    base = to_proto.base_to_proto(Base(COMMIT, (Path("/a"),), (), b"b\xff", Path("/p"), caveats)).base
    assert (base.branch, base.branch_is_lossy, list(base.layers), base.pins_path) == ("b\ufffd", True, ["/a"], "/p")
    assert (list(base.caveats[0].paths), list(base.caveats[0].raw_paths)) == (["s\ufffd"], [b"s\xff"])


def test_a_diff_comes_in_pieces() -> None:
    sizes = [len(message.data) for message in to_proto.diff_to_proto(b"x" * 150_000)]
    assert sizes == [65536, 65536, 18928]
    (end,) = to_proto.diff_to_proto(DiffEnd(3))
    assert (end.truncated, end.omitted_files) == (True, 3)


@given(st.sets(st.binary(min_size=1).filter(lambda path: b"\0" not in path), max_size=12), st.integers(1, 5))
def test_pages_hold_every_path_once(paths: set[bytes], size: int) -> None:
    entries = [StatusEntry(path, ".", "M") for path in sorted(paths)]
    seen: list[bytes] = []
    token = ""
    while True:
        answer = to_proto.status_page_to_proto(entries, Page.parse(size, token))
        for entry in answer.entries:
            assert entry.path == (entry.raw_path or entry.path.encode()).decode("utf-8", "replace")
            seen.append(entry.raw_path or entry.path.encode())
        token = answer.next_page_token
        if not token:
            break
    assert seen == sorted(paths)
