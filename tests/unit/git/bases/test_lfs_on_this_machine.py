"""Files of Git LFS in repositories on this machine, and in submodules: contents, results, patches, refusals."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from services.common.caveats import CaveatKind
from services.common.errors import FailedPrecondition
from services.common.ids import new_id
from services.git.model import Base, Remote, StartPoint, TreeOrigin
from services.redaction.strand import Redactor
from tests.kit.gitservice import GitParts, git_parts
from tests.kit.lfs import pointer_to
from tests.kit.lfs_files import RULES, make_with_lfs, object_of, put
from tests.kit.repos import Repo
from tests.kit.served_lfs import read

CONTENTS = {"a.bin": os.urandom(3000), "deep/b.bin": b"b" * 2000}
INNER = {"c.bin": b"of a submodule" * 100, "d.bin": b"another" * 100}


async def prepare(parts: GitParts, bare: Repo) -> Base:
    return await parts.prepare(Remote("repo-1", str(bare.path)), StartPoint(git_lfs=True))


async def test_contents_come_from_the_repository_and_go_there_before_the_branch(
    parts: GitParts, tmp_path: Path
) -> None:
    bare = make_with_lfs(tmp_path, "app", CONTENTS)
    base = await prepare(parts, bare)
    assert (base.caveats, {path: read(base, path) for path in CONTENTS}) == ((), CONTENTS)
    workspace = await parts.layered(base, mounted=False)
    assert await workspace.agent("git status --porcelain; echo new > new.bin; cp a.bin same.bin") == ""
    spec = replace(workspace.take_spec(), git_lfs=True)
    result = await parts.manager.take_result("repo-1", new_id("result"), spec)
    assert result.caveats == ()
    new = pointer_to(b"new\n")
    assert not object_of(bare, new).exists()
    object_of(bare, new).mkdir(parents=True)
    with pytest.raises(FailedPrecondition) as failure:
        await parts.manager.push(Remote("repo-1", str(bare.path)), result.commit_id, b"work", "")
    assert (failure.value.reason, "takes no object" in failure.value.message) == ("PUSH_REJECTED", True)
    object_of(bare, new).rmdir()
    await parts.manager.push(Remote("repo-1", str(bare.path)), result.commit_id, b"work", "")
    assert object_of(bare, new).read_bytes() == b"new\n"
    assert bare.git("show", "work:new.bin") + "\n" == new.text.decode()
    assert {path.name for path in (bare.path / "lfs").rglob("*") if path.is_file()} == {
        pointer_to(content).oid for content in (*CONTENTS.values(), b"new\n")
    }


@pytest.mark.slow
async def test_where_nobody_has_used_it_files_stay_files(parts: GitParts, tmp_path: Path) -> None:
    work = Repo.init(tmp_path / "plain")
    work.commit("rules", {".gitattributes": RULES})
    bare = work.bare_clone(tmp_path / "plain.git")
    workspace = await parts.layered(await prepare(parts, bare), mounted=False)
    await workspace.agent("echo new > new.bin")
    spec = replace(workspace.take_spec(), git_lfs=True)
    result = await parts.manager.take_result("repo-1", new_id("result"), spec)
    assert [each.kind for each in result.caveats] == [CaveatKind.LFS_FILES]
    assert not (bare.path / "lfs").exists()


def replaced_by_link(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))
    file.symlink_to("elsewhere")


def reached_by_link(file: Path) -> None:
    file.parent.rename(file.parent.with_name("elsewhere"))
    file.parent.symlink_to("elsewhere")


def replaced_by_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "not there": (Path.unlink, "does not have it"),
    "another content": (lambda file: file.write_bytes(os.urandom(3000)), "not what its pointer names"),
    "a longer one": (lambda file: file.write_bytes(CONTENTS["a.bin"] + b"x"), "not what its pointer names"),
    "empty": (lambda file: file.write_bytes(b""), "not what its pointer names"),
    "a link": (replaced_by_link, "that can be used"),
    "below a link": (reached_by_link, "that can be used"),
    "a pipe": (replaced_by_pipe, "not what its pointer names"),
    "a directory": (lambda file: (file.unlink(), file.mkdir()), "not what its pointer names"),
    "somebody else's": (lambda file: os.chown(file, 12345, 12345), "in the cell's own repositories alone"),
    "in somebody else's": (lambda file: os.chown(file.parent, 12345, 12345), "in the cell's own repositories alone"),
}


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
async def test_what_is_no_object_of_our_own_stays_a_pointer(tmp_path: Path) -> None:
    bare = make_with_lfs(tmp_path, "app", CONTENTS)
    content = CONTENTS["a.bin"]
    async with git_parts(tmp_path / "home", tmp_path, lfs_max_bytes=1 << 20) as parts:
        for name, (change, says) in ODD.items():
            change(put(bare, content))
            (caveat,) = (await prepare(parts, bare)).caveats
            assert (caveat.paths, says in caveat.detail) == ((b"a.bin",), True), (name, caveat.detail)
            _clear(bare)
        put(bare, content)
        assert (await prepare(parts, bare)).caveats == ()


def _clear(bare: Repo) -> None:
    place = object_of(bare, pointer_to(CONTENTS["a.bin"])).parent
    for each in (place, place.with_name("elsewhere")):
        if each.is_symlink():
            each.unlink()
        elif each.exists():
            shutil.rmtree(each)


@pytest.mark.slow
async def test_submodules_have_their_contents_and_an_agents_patch_has_what_it_changed(
    parts: GitParts, tmp_path: Path
) -> None:
    inner = make_with_lfs(tmp_path, "inner", INNER)
    bare = make_with_lfs(tmp_path, "app", CONTENTS)
    work = Repo(tmp_path / "app")
    work.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", inner.path, "lib")
    work.git("commit", "--quiet", "--message=a submodule")
    work.git("push", "--quiet", bare.path, "main")
    object_of(inner, pointer_to(INNER["d.bin"])).unlink()
    base = await prepare(parts, bare)
    (caveat,) = base.caveats
    assert (caveat.kind, caveat.paths) == (CaveatKind.LFS_POINTERS, (b"lib/d.bin",))
    assert {path: read(base, path) for path in CONTENTS} == CONTENTS
    assert read(base, "lib/c.bin") == INNER["c.bin"]
    put(inner, INNER["d.bin"])
    base = await prepare(parts, bare)
    assert (base.caveats, read(base, "lib/d.bin")) == ((), INNER["d.bin"])
    workspace = await parts.layered(base, mounted=False)
    assert await workspace.agent("git status --porcelain; cd lib; git status --porcelain") == ""
    await workspace.agent("touch lib/c.bin; echo changed > lib/d.bin; echo new > lib/e")
    place = new_id("exec")
    taken = await parts.manager.take_artifacts(
        place, workspace.tree, (), Redactor({}), TreeOrigin("repo-1", base.commit_id)
    )
    assert [each.name for each in taken.artifacts] == [".boatyard/submodules/lib.patch"]
    read_patch = parts.manager.read_artifact(place, taken.artifacts[0].name, 0, 0)
    patch = b"".join([piece async for piece, _ in read_patch])
    clone = Repo.init(tmp_path / "clone")
    clone.git("pull", "--quiet", inner.path, "main")
    clone.git("apply", "--index", "-", stdin=patch)
    assert clone.git("diff", "--cached", "--name-only").split() == ["d.bin", "e"]
    assert (clone.path / "d.bin").read_text() == "changed\n"
