"""Files that a workspace has from its beginning: where they are said to be, and nowhere else."""

from pathlib import Path

import pytest
from boatyard.workspace.v1 import workspace_pb2 as pb

from services.common.rpc.rules import Rules
from services.workspace import wire
from services.workspace.drivers import DriverError
from services.workspace.files import write_files
from services.workspace.model import File, NewWorkspace


def test_what_is_in_the_way_goes_and_no_link_is_followed(tmp_path: Path) -> None:
    top, outside = tmp_path / "top", tmp_path / "outside"
    top.mkdir()
    outside.mkdir()
    (outside / "kept").write_text("theirs")
    (top / "link").symlink_to(outside)
    (top / "file").write_text("a file where a directory must be")
    (top / "named").symlink_to(outside / "kept")
    (top / "directory").mkdir()
    (top / "directory" / "stays").touch()
    names = ("link/x", "file/y/z", "named", "directory/new")
    write_files(top, [File(Path(name), name.encode()) for name in names])
    assert {name: (top / name).read_text() for name in names} == {name: name for name in names}
    assert [path for path in (top / "link", top / "named") if path.is_symlink()] == []
    assert [path.name for path in outside.iterdir()] == ["kept"]
    assert (outside / "kept").read_text() == "theirs"
    assert (top / "directory" / "stays").exists()
    assert (top / "named").stat().st_mode & 0o777 == 0o644


def test_a_file_cannot_take_a_directorys_place(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(DriverError, match="cannot write"):
        write_files(tmp_path, [File(Path("a"), b"")])


@pytest.mark.parametrize(
    "paths", [[""], ["/a"], ["a/"], ["../a"], ["a/../b"], ["./a"], ["a\0"], ["\u00e4" * 2048], ["a", "a/b"], ["a", "a"]]
)
def test_paths_that_lead_elsewhere_are_refused(paths: list[str]) -> None:
    files = [pb.File(path=path) for path in paths]
    violations = Rules(wire.CHECKS).violations(pb.CreateWorkspaceRequest(workspace_id="w", files=files))
    assert violations
    assert all(field.startswith("files") for field, _ in violations)


def test_other_files_are_another_request() -> None:
    def digest(*files: tuple[str, bytes]) -> str:
        return NewWorkspace("w", files=tuple(File(Path(path), content) for path, content in files)).files_digest

    digests = [
        digest(),
        digest(("a", b"")),
        digest(("a", b"b")),
        digest(("ab", b"")),
        digest(("a", b""), ("b", b"")),
        digest(("b", b""), ("a", b"")),
    ]
    assert digests[0] == ""
    assert len(set(digests)) == len(digests)
