"""What stands in a request is refused with a clear error, or stays what it is: no option, no way out of its place."""

import tempfile
from pathlib import Path

import pytest
from boatyard.git.v1 import git_pb2 as pb
from boatyard.workspace.v1 import layout_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.common.errors import Invalid
from services.common.settings import Home
from services.git.gitcmd import Command, git_argv
from services.git.gitcmd.commands import COMMANDS
from services.git.places import Places
from services.git.remotes import AddressBook
from services.git.requests import Requests
from tests.kit.layout import workspace_trees

COMMIT = "0123456789" * 4
SIGNATURE = pb.Signature(name="Ada", email="a@b", time=Timestamp(seconds=1))

SPITEFUL = [
    b"-x", b"--upload-pack=touch x", b"--exec=x", b"-", b"--", b"--end-of-options", b"\0", b"a\0b", b"a\nb", b"a\rb",
    b"..", b"../x", b"a/../../x", b"/etc/passwd", b"/", b"//", b"~", b"~root", b".git", b".GIT", b".git/config",
    b"git~1", b".git ", b".git.", b".git::$INDEX_ALLOCATION", b".g\xe2\x80\x8cit", b"CON", b"aux.txt", b"COM1",
    b"nul", b"a" * 4096, b"\xff\xfe", b"\xc0\xaf", b"HEAD", b"@", b"@{-1}", b"refs/heads/../x", b"main.lock", b"main~1",
    b":/x", b"^x", b"*", b"ext::sh -c x",
    b"file:///etc", b"https://u:p@h/x", b"$(x)", b"`x`", b"%2e%2e", b"\xe2\x80\xae", b" ", b"",
]  # fmt: skip
PIECES = st.one_of(st.sampled_from(SPITEFUL), st.binary(max_size=40))
WORDS = st.lists(PIECES, min_size=1, max_size=3).map(b"/".join) | PIECES
TEXTS = WORDS.map(lambda word: word.decode("utf-8", "replace"))


@pytest.fixture(scope="module")
def requests():
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory).resolve()
        home = Home(root / "home")
        yield Requests(AddressBook((root / "roots",), home.root), Places(home))


def tree(requests: Requests, path: bytes | None = None) -> pb.WorkingTree:
    places = requests._places
    inside = bytes(workspace_trees(places.home) / "w" / "tree") if path is None else path
    return pb.WorkingTree(layout=layout_pb2.Layout(path=inside))


def attempt(read, request):
    """Return what was read and no fields, or nothing and the fields that were complained about."""
    try:
        return read(request), set()
    except Invalid as error:
        assert all(complaint for _, complaint in error.violations)  # noqa: PT017 - either is right
        return None, {field for field, _ in error.violations}


fuzz = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzz
@given(revision=WORDS, url=TEXTS, repository=TEXTS, token=TEXTS)
def test_what_to_start_from(requests: Requests, revision: bytes, url: str, repository: str, token: str) -> None:
    remote = pb.Remote(repository_id=repository, url=url, token=token)
    good = pb.Remote(repository_id="r", url="https://example.com/x")
    for request in (
        pb.PrepareBaseRequest(remote=remote, revision=revision),
        pb.PrepareBaseRequest(remote=good, revision=revision),
    ):
        found, fields = attempt(requests.prepare_base, request)
        if fields:
            continue
        read, wanted = found
        # It can be an argument of git as it is, and names one thing in one place.
        argv = git_argv(Command("fetch", (), (read.url, b"+refs/heads/" + wanted.revision + b":refs/heads/x")))
        assert argv[-3] == b"--end-of-options"
        assert (requests._places.mirrors / f"{read.repository_id}.git").parent == requests._places.mirrors
        assert not set(b"\0\n\r ~^:?*[\\") & set(wanted.revision)
        assert read.token.isprintable()


@fuzz
@given(branch=WORDS, commit=TEXTS)
def test_branches_and_commits(requests: Requests, branch: bytes, commit: str) -> None:
    request = pb.CreateBranchRequest(tree=tree(requests), branch=branch, commit_id=commit)
    found, fields = attempt(requests.create_branch, request)
    if fields:
        assert fields <= {"branch", "commit_id"}
        return
    _, name, commit_id = found
    assert not name.startswith(b"-")
    assert b".." not in name
    assert commit_id == "" or (len(commit_id) in {40, 64} and commit_id.isalnum())


@fuzz
@given(path=WORDS, below=st.booleans())
def test_trees_stay_where_trees_may_be(requests: Requests, path: bytes, below: bool) -> None:
    places = requests._places
    told = bytes(workspace_trees(places.home)) + b"/" + path if below else bytes(places.home.root) + b"/" + path
    layers = layout_pb2.Layers(lowers=[told], upper=told, work=told, mounted_path=told)
    for message in (tree(requests, told), pb.WorkingTree(layout=layout_pb2.Layout(layers=layers))):
        read, fields = attempt(requests.tree, message)
        if fields:
            assert all(field.startswith("tree.layout") for field in fields)
            continue
        resolved = read.path.resolve()
        assert resolved.is_relative_to(workspace_trees(places.home)) or not resolved.is_relative_to(places.home.root)
        assert resolved != workspace_trees(places.home)


@fuzz
@given(borrowed=WORDS)
def test_nothing_is_borrowed_but_objects_of_mirrors(requests: Requests, borrowed: bytes) -> None:
    places = requests._places
    message = tree(requests)
    message.read_only_paths.append(bytes(places.mirrors) + b"/" + borrowed)
    found, fields = attempt(requests.tree, message)
    if fields:
        assert fields == {"tree.read_only_paths[0]"}
        return
    (read,) = found.read_only_paths
    assert read.resolve().parent.parent == places.mirrors
    assert read.name == "objects"


@fuzz
@given(text=TEXTS, name=TEXTS)
def test_messages_names_and_ids(requests: Requests, text: str, name: str) -> None:
    signature = pb.Signature(name=name, email=name, time=Timestamp(seconds=1))
    calls = (
        (requests.commit, pb.CommitRequest(tree=tree(requests), message=text, signature=signature)),
        (requests.snapshot_tree, pb.SnapshotTreeRequest(
            tree=tree(requests), repository_id=name, snapshot_id=text, base_commit_id=text, message=text)),
        (requests.snapshots, pb.ListSnapshotsRequest(repository_id=text, page_token=name)),
        (requests.diff, pb.GetDiffRequest(repository_id=text, base_branch=name.encode(), commit_id=COMMIT)),
        (requests.push, pb.PushRequest(
            remote=pb.Remote(repository_id="r", url="https://example.com/x"), commit_id=COMMIT, branch=name.encode(),
            expected_commit_id=text)),
    )  # fmt: skip
    for read, request in calls:
        attempt(read, request)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_ends_its_options(name: str) -> None:
    """What is positional stands behind `--end-of-options`, or is ours alone; paths stand behind two dashes."""
    spec = COMMANDS[name]
    argv = git_argv(Command(name, (), ("value",), (b"-path",) if spec.paths else ()))
    ours = {"check-attr", "checkout", "config", "index-pack", "prune", "repack"}
    assert (b"--end-of-options" in argv) == (name not in ours), f"git {name} might take an argument for an option"
    if spec.paths:
        assert argv[-2:] == (b"--", b"-path")
    with pytest.raises(ValueError, match="may not be"):
        git_argv(Command(name, (), ("-value",)))
    with pytest.raises(ValueError, match="may not be given"):
        git_argv(Command(name, ("--exec-path=/tmp",)))
