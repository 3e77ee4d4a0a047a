"""Nobody but the cell's user and root leads git anywhere: what others may change on the way to a remote is refused."""

import contextlib
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from services.common.errors import FailedPrecondition
from services.git.remote.file_repository import OTHERS, FileRoots, opened
from tests.kit.repos import Repo
from tests.unit.git.remote.test_file_remotes import OTHER, alternates, as_root, mine, roots

__all__ = ["mine", "roots"]

Plant = Callable[[Repo], Path]
_WITHOUT_A_GROUP = 54321


def beside(repo: Repo, name: str = "way", mode: int = 0o755) -> Path:
    """Make a directory beside the repository."""
    (made := repo.path.parent / name).mkdir()
    made.chmod(mode)
    return made


def of_another(path: Path) -> Path:
    os.chown(path, OTHER, OTHER, follow_symlinks=False)
    return path


def link(path: Path, target: Path | str) -> Path:
    path.symlink_to(target)
    return path


def below_everybodys_directory(repo: Repo) -> Path:
    return repo.path.rename(beside(repo, mode=0o777) / "remote.git")


def by_a_link_in_everybodys_directory(repo: Repo) -> Path:
    return link(beside(repo, mode=0o777) / "link", repo.path)


def that_is_everybodys_itself(repo: Repo) -> Path:
    repo.path.chmod(0o777)
    return repo.path


def below_a_groups_directory(repo: Repo) -> Path:
    os.chown(way := beside(repo), -1, _WITHOUT_A_GROUP)
    way.chmod(0o775)
    return repo.path.rename(way / "remote.git")


def below_a_directory_with_an_access_list(repo: Repo) -> Path:
    entries = ((0x01, 7, -1), (0x02, 7, OTHER), (0x04, 5, -1), (0x10, 7, -1), (0x20, 5, -1))
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(way := beside(repo), "system.posix_acl_access", acl)
    except OSError:
        pytest.skip("this file system has no access lists")
    return repo.path.rename(way / "remote.git")


def below_anothers_directory(repo: Repo) -> Path:
    return repo.path.rename(of_another(beside(repo)) / "remote.git")


def deep_below_anothers_directory(repo: Repo) -> Path:
    (deep := of_another(beside(repo)) / "deep").mkdir()
    return repo.path.rename(deep / "remote.git")


def below_anothers_sticky_directory(repo: Repo) -> Path:
    return repo.path.rename(of_another(beside(repo, mode=0o1777)) / "remote.git")


def by_anothers_link(repo: Repo) -> Path:
    return of_another(link(repo.path.parent / "link", repo.path))


def by_anothers_link_in_a_sticky_directory(repo: Repo) -> Path:
    return of_another(link(beside(repo, mode=0o1777) / "link", repo.path))


def by_a_link_to_anothers_link(repo: Repo) -> Path:
    return link(repo.path.parent / "ours", by_anothers_link_in_a_sticky_directory(repo))


def by_a_link_through_anothers_directory(repo: Repo) -> Path:
    of_another(beside(repo))
    return link(repo.path.parent / "link", f"way/../{repo.path.name}")


def with_a_pointer_through_anothers_link(repo: Repo) -> Path:
    (tree := beside(repo, "tree")).joinpath(".git").write_text(f"gitdir: {by_anothers_link(repo)}\n")
    return tree


def with_a_common_part_through_anothers_link(repo: Repo) -> Path:
    (repo.path / "commondir").write_text(str(by_anothers_link(repo.bare_clone(repo.path.parent / "other.git"))))
    return repo.path


def with_a_lender_through_anothers_directory(repo: Repo) -> Path:
    lender = repo.bare_clone(of_another(beside(repo)) / "lender.git")
    alternates(repo, lender.path / "objects")
    return repo.path


ANYBODYS = [below_everybodys_directory, by_a_link_in_everybodys_directory, that_is_everybodys_itself,
            below_a_directory_with_an_access_list]  # fmt: skip
OF_ANOTHER = [below_a_groups_directory, below_anothers_directory, deep_below_anothers_directory,
              below_anothers_sticky_directory, by_anothers_link, by_anothers_link_in_a_sticky_directory,
              by_a_link_to_anothers_link, by_a_link_through_anothers_directory, with_a_pointer_through_anothers_link,
              with_a_common_part_through_anothers_link, with_a_lender_through_anothers_directory]  # fmt: skip


@pytest.mark.parametrize("plant", [*ANYBODYS, *(pytest.param(plant, marks=as_root) for plant in OF_ANOTHER)])
def test_a_way_that_others_may_change_is_refused(mine: Repo, roots: FileRoots, plant: Plant) -> None:
    path = plant(mine)
    said = rf"may be changed by|belongs to uid {OTHER}|symbolic link of uid {OTHER}"
    with pytest.raises(FailedPrecondition, match=said) as failure, opened(path, roots):
        pass
    assert failure.value.reason == "REMOTE_NOT_ALLOWED"
    assert OTHERS in str(failure.value), "it names the mend"


@pytest.mark.parametrize("plant", [*ANYBODYS, *(pytest.param(plant, marks=as_root) for plant in OF_ANOTHER)])
def test_below_the_roots_of_others_the_sandbox_alone_holds(mine: Repo, plant: Plant, tmp_path: Path) -> None:
    path = plant(mine)
    with opened(path, FileRoots((), (tmp_path / "mine",), tmp_path / "home")) as repository:
        assert all(part.path.is_relative_to(tmp_path / "mine") for part in repository.parts)


def below_a_sticky_directory(repo: Repo) -> Path:
    return repo.path.rename(beside(repo, mode=0o1777) / "remote.git")


def by_links(repo: Repo) -> Path:
    relative = link(beside(repo, mode=0o1777) / "relative", f"../{repo.path.name}")
    return link(repo.path.parent / "absolute", relative.parent / "." / relative.name)


def below_a_link(repo: Repo) -> Path:
    return link(beside(repo) / "link", "..") / repo.path.name


def through_directories_that_nobody_lists(repo: Repo) -> Path:
    return repo.path.rename(beside(repo, mode=0o711) / "remote.git")


def below_a_directory_of_our_own_group(repo: Repo) -> Path:
    return repo.path.rename(beside(repo, mode=0o775) / "remote.git")


@pytest.mark.parametrize(
    "plant",
    [below_a_sticky_directory, by_links, below_a_link, through_directories_that_nobody_lists,
     pytest.param(below_a_directory_of_our_own_group, marks=as_root)],
)  # fmt: skip
def test_our_own_ways_lead_where_the_kernels_do(mine: Repo, roots: FileRoots, plant: Plant) -> None:
    path = plant(mine)
    with opened(path, roots) as repository:
        assert repository.git_dir == path.resolve()


def test_links_in_a_circle_are_no_endless_way(mine: Repo, roots: FileRoots) -> None:
    place = mine.path.parent
    link(place / "one", "two")
    link(place / "two", "one")
    assert roots.complaint(place / "one") is None
    with pytest.raises(FailedPrecondition, match="symbolic links"), opened(place / "one", roots):
        pass
    link(mine.path / "refs" / "three", "three")
    with opened(mine.path, roots):
        pass


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_no_descriptor_is_left(mine: Repo, roots: FileRoots) -> None:
    paths = [by_links(mine), mine.path.parent / "nothing", mine.path / "HEAD" / "x", mine.path / "config"]
    before = descriptors()
    for path in paths:
        with contextlib.suppress(Exception), opened(path, roots):
            pass
    assert descriptors() == before


@pytest.mark.parametrize("part", ["objects", "objects/pack", "refs/heads"])
def test_without_a_sandbox_nobody_else_may_change_it(mine: Repo, roots: FileRoots, part: str) -> None:
    (mine.path / part).chmod(0o777)
    with opened(mine.path, roots):
        pass
    with (
        pytest.raises(FailedPrecondition, match=r"every user.* no sandbox"),
        opened(mine.path, roots, sandboxed=False),
    ):
        pass


IN_A_NAMESPACE = """
import sys
from pathlib import Path
from services.git.remote.ways import ForeignWayError, open_own_directory
try:
    open_own_directory(Path(sys.argv[1]))
except ForeignWayError as error:
    print(error.path, error.problem)
"""


@as_root
def test_in_a_user_namespace_nobody_is_trusted_whom_it_does_not_have(tmp_path: Path) -> None:
    """There the owner of / has the number of all others: whose directory it is, nobody knows."""
    inside = ["unshare", "--user", "--map-current-user", sys.executable, "-c", IN_A_NAMESPACE, of_another(tmp_path)]
    command = ["setpriv", "--reuid", str(OTHER), "--clear-groups", *inside]
    made = subprocess.run(command, capture_output=True, check=False)
    if b"unshare failed" in made.stderr:
        pytest.skip("ordinary users have no user namespaces here")
    assert b"/ belongs to nobody" in made.stdout, made.stderr
