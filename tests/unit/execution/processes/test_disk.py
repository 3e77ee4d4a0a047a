"""How much a directory has grown: noticed soon, and without counting all the time."""

import time
from pathlib import Path

import pytest

from services.execution.processes.disk import Growth


def look_until(growth: Growth, holds) -> None:
    deadline = time.monotonic() + 20
    while not holds(growth):
        assert time.monotonic() < deadline
        time.sleep(max(0.0, min(growth.due() - time.monotonic(), 0.05)))
        growth.look()


def write(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.write(b"x" * size)


@pytest.mark.parametrize("empty", [True, False])
def test_what_is_written_beyond_the_limit_is_noticed(tmp_path: Path, empty: bool) -> None:
    growth = Growth(tmp_path, 4_000_000, changes=empty)
    growth.look()
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep" / "file", 9_000_000)
    look_until(growth, lambda one: one.exceeded)
    assert 9_000_000 <= growth.used < 10_000_000


def test_what_was_there_before_does_not_count(tmp_path: Path) -> None:
    for number in range(300):
        write(tmp_path / f"file-{number}", 10_000)
    growth = Growth(tmp_path, 1_000_000, changes=False)
    counted = time.monotonic() + 1
    look_until(growth, lambda one: one.due() > time.monotonic() and time.monotonic() > counted)
    assert not growth.exceeded
    assert growth.used < 100_000


def test_what_is_beside_counts_whole_from_the_beginning(tmp_path: Path) -> None:
    tree, home = tmp_path / "tree", tmp_path / "home"
    tree.mkdir()
    home.mkdir()
    write(tree / "file", 3_000_000)
    write(home / "file", 900_000)
    growth = Growth(tree, 1_000_000, changes=False, beside=home)
    look_until(growth, lambda one: one.used >= 900_000)
    assert not growth.exceeded
    write(home / "more", 200_000)
    look_until(growth, lambda one: one.exceeded)
    assert 1_100_000 <= growth.used < 1_200_000


def test_what_an_earlier_round_has_changed_counts_from_the_beginning(tmp_path: Path) -> None:
    write(tmp_path / "file", 3_000_000)
    growth = Growth(tmp_path, 1_000_000, changes=True)
    look_until(growth, lambda one: one.exceeded)


def test_a_directory_that_goes_away_is_no_trouble(tmp_path: Path) -> None:
    growth = Growth(tmp_path / "gone", 1000, changes=False)
    growth.look()
    assert not growth.exceeded
