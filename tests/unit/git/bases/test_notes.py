"""What a base does not hold is told, and what cannot be fetched whole is refused: nothing is left out in silence."""

from pathlib import Path

import pytest

from services.common.caveats import CaveatKind
from services.common.errors import FailedPrecondition
from services.git.model import Caveat, Remote
from services.git.wire import to_proto
from tests.kit.gitservice import GitParts
from tests.kit.repos import Repo

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 12345\n".format("ab" * 32)


async def test_submodules_and_pointers_are_told(parts: GitParts, tmp_path: Path) -> None:
    work = Repo.sample(tmp_path / "work")
    head = work.head()
    work.git("update-index", "--add", "--cacheinfo", f"160000,{head},vendor/lib")
    (work.path / "vendor" / "lib").mkdir(parents=True)
    work.commit(
        "both", {"assets/.gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n", "assets/a.bin": POINTER}
    )
    base = await parts.prepare(Remote("repo-1", str(work.path)))
    links = Caveat(CaveatKind.EMPTY_SUBMODULES, (b"vendor/lib",), 1, "vendor/lib: no URL in .gitmodules")
    assert base.caveats == (links, Caveat(CaveatKind.LFS_POINTERS, (b"assets/a.bin",), 1))
    assert list((base.layers[0] / "vendor" / "lib").iterdir()) == []
    assert (base.layers[0] / "assets" / "a.bin").read_text() == POINTER
    notes = to_proto.base_to_proto(base).base.caveats
    assert [(note.kind, list(note.paths), note.total_paths) for note in notes] == [
        (1, ["vendor/lib"], 1), (2, ["assets/a.bin"], 1)
    ]  # fmt: skip
    workspace = parts.workspace(base)
    workspace.agent.write({"assets/new.bin": "content"})
    result = await parts.manager.take_result("repo-1", "result-1", workspace.take_spec())
    files = Repo(parts.paths.result_store("repo-1")).git("ls-tree", "-r", result.commit_id)
    assert f"160000 commit {head}\tvendor/lib" in files
    assert "assets/new.bin" in files


async def test_a_whole_base_has_no_notes(parts: GitParts, remote: Remote) -> None:
    assert (await parts.prepare(remote)).caveats == ()


async def test_a_remote_without_its_history_is_refused(parts: GitParts, tmp_path: Path) -> None:
    whole = Repo.sample(tmp_path / "work")
    whole.git("clone", "--quiet", "--bare", "--depth=1", f"file://{whole.path}", str(tmp_path / "shallow.git"))
    with pytest.raises(FailedPrecondition, match="shallow") as failure:
        await parts.prepare(Remote("repo-1", str(tmp_path / "shallow.git")))
    assert failure.value.reason == "REMOTE_UNSUPPORTED"


@pytest.mark.parametrize(
    ("name", "is_told"),
    [(".boatyard", True), (".boatyard/config", True), ("sub/.boatyard/x", False), (".boatyardrc", False)],
)
async def test_a_repository_with_a_boatyard_of_its_own_is_told(
    parts: GitParts, tmp_path: Path, name: str, is_told: bool
) -> None:
    source = Repo.sample(tmp_path / "own")
    source.commit("its own", {name: "x"})
    base = await parts.prepare(Remote("repo-2", str(source.path)))
    assert base.caveats == ((Caveat(CaveatKind.OWN_BOATYARD, (b".boatyard",), 1),) if is_told else ())
