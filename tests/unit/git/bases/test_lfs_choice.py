"""Which files of Git LFS a base gets: neither what .lfsconfig leaves out, nor what the limits and the disk refuse."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import Exhausted
from services.git.app import find_git
from services.git.bases.lfs_choice import LfsLimits, choose, left_out
from services.git.bases.lfs_files import LfsFile
from services.git.pointers import Pointer
from tests.kit.lfs import pointer_to
from tests.kit.repos import Repo
from tests.kit.served_lfs import CONTENTS, Served, read, served_lfs

SIZES = st.lists(st.one_of(st.integers(0, 50), st.integers(0, 10**19 - 1)), max_size=20)


@given(sizes=SIZES, limits=st.builds(LfsLimits, st.integers(1, 8), st.integers(0, 120)))
def test_no_more_is_chosen_than_the_limits_allow_and_nothing_large_takes_the_room_of_small_ones(
    sizes: list[int], limits: LfsLimits
) -> None:
    files = [LfsFile(Pointer(f"{number:064x}", size), is_executable=False) for number, size in enumerate(sizes)]
    refused, wanted = choose(files, limits)
    assert {file.pointer for file in files} == wanted | refused.keys()
    assert not wanted & refused.keys()
    assert len(wanted) <= limits.files
    assert sum(pointer.size for pointer in wanted) <= limits.bytes
    small = [pointer.size for pointer in refused if pointer.size]
    assert all(pointer.size <= min(small, default=pointer.size) for pointer in wanted)


@pytest.mark.slow
async def test_pointers_that_claim_more_than_the_disk_has_take_nothing_away(tmp_path: Path) -> None:
    async with served_lfs(tmp_path, disk_budget_bytes=4 << 20, base_grace_seconds=0) as served:
        there = pointer_to(CONTENTS["a.bin"]).oid
        lies = {
            f"{size}-{oid[:4]}.bin": Pointer(oid, size).text.decode()
            for size in (5001, 64 << 20, 4 << 30, 1 << 40, 10**19 - 1)
            for oid in (there, "0" * 64)
        }
        served.work.commit("lies", lies)
        served.push()
        base = await served.prepare()
        assert {path.decode() for each in base.caveats for path in each.paths} == lies.keys()
        assert {path: read(base, path) for path in CONTENTS} == CONTENTS


@pytest.mark.slow
async def test_what_the_limit_of_bytes_refuses_is_not_asked_for(tmp_path: Path) -> None:
    async with served_lfs(tmp_path, lfs_max_bytes=3000) as served:
        (caveat,) = (await served.prepare()).caveats
    assert (caveat.paths, served.lfs.calls["GET content"]) == ((b"a.bin",), 2)
    assert "BOATYARD_GIT_LFS_MAX_BYTES" in caveat.detail


@pytest.mark.slow
async def test_what_comes_and_has_no_room_on_the_disk_is_a_full_disk(tmp_path: Path) -> None:
    async with served_lfs(tmp_path, disk_budget_bytes=2 << 20, base_grace_seconds=0) as served:
        served.work.commit("large", {"large.bin": served.lfs.add(os.urandom(3 << 20)).text.decode()})
        served.push()
        with pytest.raises(Exhausted, match="BOATYARD_GIT_DISK_BUDGET_BYTES") as refused:
            await served.prepare()
        assert refused.value.reason == "DISK_FULL"
        base = await served.prepare(git_lfs=False)
        assert read(base, "a.bin") == pointer_to(CONTENTS["a.bin"]).text


# Patterns of .lfsconfig, and which of the files of CONTENTS are left out.
PATTERNS = {
    "exclude a name": ("fetchexclude = a.bin", {"a.bin"}),
    "exclude by a wildcard": ("fetchexclude = *.bin", set(CONTENTS)),
    "exclude a directory": ("fetchexclude = deep", {"deep/er/b.bin"}),
    "exclude all below a directory": ("fetchexclude = deep/**", {"deep/er/b.bin"}),
    "exclude one at the top": ('fetchexclude = "/a.bin"', {"a.bin"}),
    "exclude nothing that is there": ("fetchexclude = /b.bin", set[str]()),
    "exclude several": ('fetchexclude = " a.bin , , deep/er "', {"a.bin", "deep/er/b.bin"}),
    "include one": ("fetchinclude = tool.*", {"a.bin", "deep/er/b.bin"}),
    "include a directory, exclude in it": (
        "fetchinclude = deep,a.bin\n\tfetchexclude = er",
        {"deep/er/b.bin", "tool.bin"},
    ),
    "the last one holds": ("fetchexclude = *\n\tfetchexclude = a.bin", {"a.bin"}),
    "empty": ("fetchexclude =\n\tfetchinclude =", set[str]()),
    "no value": ("fetchexclude", set[str]()),
    "no configuration": ('fetchexclude = "', set[str]()),
}


@pytest.mark.parametrize("name", PATTERNS)
async def test_lfsconfig_names_files_as_a_gitignore_file_does(tmp_path: Path, name: str) -> None:
    text, expected = PATTERNS[name]
    repository = Repo.init(tmp_path / "work")
    repository.commit("files", {".lfsconfig": f"[lfs]\n\t{text}\n", **dict.fromkeys(CONTENTS, "x")})
    git = await find_git(tmp_path)
    found = await left_out(git, repository.path / ".git", [path.encode() for path in CONTENTS], tmp_path)
    assert {path.decode() for path in found} == expected
    assert all(".lfsconfig" in why for why in found.values())


@pytest.mark.slow
async def test_what_lfsconfig_leaves_out_stays_a_pointer_and_is_told(served: Served) -> None:
    served.work.commit("left out", {".lfsconfig": "[lfs]\n\tfetchexclude = deep\n"})
    served.work.git("push", "--quiet", str(served.server.root / "app.git"), "HEAD:refs/heads/branch")
    base = await served.prepare(revision=b"branch")
    ((caveat, *_),) = (base.caveats,)
    assert (caveat.paths, caveat.detail) == ((b"deep/er/b.bin",), "its .lfsconfig excludes it (lfs.fetchexclude)")
    assert served.lfs.calls["GET content"] == len(CONTENTS) - 1
    assert {path for path in CONTENTS if read(base, path) != CONTENTS[path]} == {"deep/er/b.bin"}
    assert (await served.prepare()).caveats == (), "another branch leaves out nothing"
