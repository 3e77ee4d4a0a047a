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
from services.common.home import Home
from services.common.rpc.rules import Rules
from services.git.gitcmd import Command, git_argv
from services.git.gitcmd.commands import COMMANDS
from services.git.paths import GitPaths
from services.git.remote.addresses import AddressBook
from services.git.remote.file_repository import FileRoots
from services.git.wire import from_proto
from services.git.wire.checks import checks
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
def paths():
    with tempfile.TemporaryDirectory() as directory:
        yield GitPaths(Home(Path(directory).resolve() / "home"))


@pytest.fixture(scope="module")
def rules(paths: GitPaths) -> Rules:
    return Rules(checks(AddressBook(FileRoots((paths.home.root.parent / "roots",), (), paths.home.root)), paths))


def tree(paths: GitPaths, path: str | None = None) -> pb.WorkingTree:
    inside = str(workspace_trees(paths.home) / "w" / "tree") if path is None else path
    return pb.WorkingTree(layout=layout_pb2.Layout(path=inside))


def attempt(rules: Rules, read, request):
    """Return what was read and no fields, or nothing and the fields that were complained about."""
    try:
        rules.enforce(request)
        return read(request), set()
    except Invalid as error:
        assert all(complaint for _, complaint in error.violations)  # noqa: PT017 - either is right
        return None, {field for field, _ in error.violations}


fuzz = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzz
@given(revision=TEXTS, url=TEXTS, repository=TEXTS, token=TEXTS)
def test_what_to_start_from(
    rules: Rules, paths: GitPaths, revision: str, url: str, repository: str, token: str
) -> None:
    remote = pb.Remote(repository_id=repository, url=url, token=token)
    good = pb.Remote(repository_id="r", url="https://example.com/x")
    for request in (
        pb.PrepareBaseRequest(remote=remote, revision=revision),
        pb.PrepareBaseRequest(remote=good, revision=revision),
    ):
        parsed, fields = attempt(rules, from_proto.prepare_base, request)
        if fields:
            continue
        read, start = parsed
        # It can be an argument of git as it is, and names one thing in one place.
        argv = git_argv(Command("fetch", (), (read.url, b"+refs/heads/" + start.revision + b":refs/heads/x")))
        assert argv[-3] == b"--end-of-options"
        assert (paths.mirrors / f"{read.repository_id}.git").parent == paths.mirrors
        assert not set(b"\0\n\r ~^:?*[\\") & set(start.revision)
        assert read.token.isprintable()


@fuzz
@given(branch=TEXTS, commit=TEXTS)
def test_branches_and_commits(rules: Rules, paths: GitPaths, branch: str, commit: str) -> None:
    request = pb.CreateBranchRequest(tree=tree(paths), branch=branch, commit_id=commit)
    parsed, fields = attempt(rules, from_proto.create_branch, request)
    if fields:
        assert fields <= {"branch", "commit_id"}
        return
    _, name, commit_id = parsed
    assert not name.startswith(b"-")
    assert b".." not in name
    assert commit_id == "" or (len(commit_id) in {40, 64} and commit_id.isalnum())


@fuzz
@given(path=TEXTS, below=st.booleans())
def test_trees_stay_where_trees_may_be(rules: Rules, paths: GitPaths, path: str, below: bool) -> None:
    full_path = f"{workspace_trees(paths.home) if below else paths.home.root}/{path}"
    layers = layout_pb2.Layers(lowers=[full_path], upper=full_path, work=full_path, mounted_path=full_path)
    for message in (tree(paths, full_path), pb.WorkingTree(layout=layout_pb2.Layout(layers=layers))):
        read, fields = attempt(rules, from_proto.tree, message)
        if fields:
            assert all(field.startswith("layout") for field in fields)
            continue
        resolved = read.path.resolve()
        assert resolved.is_relative_to(workspace_trees(paths.home)) or not resolved.is_relative_to(paths.home.root)
        assert resolved != workspace_trees(paths.home)


@fuzz
@given(borrowed=TEXTS)
def test_nothing_is_borrowed_but_objects_of_mirrors(rules: Rules, paths: GitPaths, borrowed: str) -> None:
    message = tree(paths)
    message.read_only_paths.append(f"{paths.mirrors}/{borrowed}")
    parsed, fields = attempt(rules, from_proto.tree, message)
    if fields:
        assert fields == {"read_only_paths[0]"}
        return
    (read,) = parsed.read_only_paths
    assert read.resolve().parent.parent == paths.mirrors
    assert read.name == "objects"


@fuzz
@given(text=TEXTS, name=TEXTS)
def test_messages_names_and_ids(rules: Rules, paths: GitPaths, text: str, name: str) -> None:
    signature = pb.Signature(name=name, email=name, time=Timestamp(seconds=1))
    calls = (
        (from_proto.commit, pb.CommitRequest(tree=tree(paths), message=text, signature=signature)),
        (from_proto.snapshot, pb.SnapshotTreeRequest(
            tree=tree(paths), repository_id=name, snapshot_id=text, base_commit_id=text, message=text)),
        (from_proto.snapshots, pb.ListSnapshotsRequest(repository_id=text, page_token=name)),
        (from_proto.diff, pb.GetDiffRequest(repository_id=text, base_branch=name, commit_id=COMMIT)),
        (from_proto.push, pb.PushRequest(
            remote=pb.Remote(repository_id="r", url="https://example.com/x"), commit_id=COMMIT, branch=name,
            expected_commit_id=text)),
    )  # fmt: skip
    for read, request in calls:
        attempt(rules, read, request)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_ends_its_options(name: str) -> None:
    """What is positional stands behind `--end-of-options`, or is ours alone; paths stand behind two dashes."""
    spec = COMMANDS[name]
    argv = git_argv(Command(name, (), ("value",), (b"-path",) if spec.paths else ()))
    ours = {"check-attr", "checkout", "config", "hash-object", "index-pack", "prune", "repack"}
    assert (b"--end-of-options" in argv) == (name not in ours), f"git {name} might take an argument for an option"
    if spec.paths:
        assert argv[-2:] == (b"--", b"-path")
    with pytest.raises(ValueError, match="may not be"):
        git_argv(Command(name, (), ("-value",)))
    with pytest.raises(ValueError, match="may not be given"):
        git_argv(Command(name, ("--exec-path=/tmp",)))
