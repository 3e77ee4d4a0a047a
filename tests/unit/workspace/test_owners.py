"""Which uids a cell has for its workspaces."""

import os
from pathlib import Path

import pytest

from services.sandbox import host_uids
from services.workspace.owners import SIZE, Owners

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives uids")


def cell(tmp_path: Path, name: str) -> Path:
    directory = tmp_path / name
    directory.mkdir()
    return directory


def owners(directory: Path) -> Owners:
    return Owners(directory, directory.parent / "registry" / "uids")


def test_cells_of_one_machine_have_different_uids_and_keep_them(tmp_path: Path) -> None:
    one, two = cell(tmp_path, "one"), cell(tmp_path, "two")
    ranges = {place: owners(place).take() // SIZE for place in (one, two)}
    assert ranges[one] != ranges[two]
    for place in (two, one):
        assert owners(place).take() // SIZE == ranges[place]
        assert owners(place).take() in host_uids.ALL


def test_the_range_of_a_cell_that_is_gone_is_free(tmp_path: Path) -> None:
    one = cell(tmp_path, "one")
    uid = owners(one).take()
    one.rmdir()
    assert owners(cell(tmp_path, "two")).take() // SIZE == uid // SIZE


def test_no_other_user_locks_the_machines_cells_out(tmp_path: Path) -> None:
    one = cell(tmp_path, "one")
    registry = tmp_path / "registry" / "uids"
    registry.mkdir(parents=True, mode=0o755)  # as it was made once
    owners(one)
    assert registry.stat().st_mode & 0o777 == 0o700, "flock(2) asks for no more than an open directory"


@pytest.mark.parametrize("place", ["w1/upper", "w1/tree", ".making/w1.x/upper", ".trash/w1.x/tree"])
def test_no_uid_is_given_twice_whatever_state_its_workspace_is_in(tmp_path: Path, place: str) -> None:
    one = cell(tmp_path, "one")
    uid = owners(one).take()
    (one / place).mkdir(parents=True)
    os.chown(one / place, uid, uid)
    again = owners(one)
    assert uid not in {again.take() for _ in range(SIZE - 1)}


def test_uids_of_removed_workspaces_come_back_after_all_others(tmp_path: Path) -> None:
    some = owners(cell(tmp_path, "one"))
    given = [some.take() for _ in range(SIZE)]
    assert len(set(given)) == SIZE
    assert some.take() == min(given)
