"""A packed log reads like a plain one, both for later readers and for those who had it open before."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.execution.eventlog import EventReader, EventWriter, Stream
from services.execution.eventlog.logfiles import open_log, pack, packed_path
from tests.unit.execution.eventlog.test_reading_and_writing import read, write


def test_who_is_reading_reads_on_and_who_comes_later_reads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "events"
    with EventWriter(path) as writer:
        for number in range(40):
            writer.output(Stream.STDOUT, b"%d " % number * 20_000, 1)
    whole, size = read(path), path.stat().st_size
    with EventReader(path) as early:
        first = early.read(100_000)
        pack(path)
        pack(path)
        assert not path.exists()
        rest = []
        while records := early.read():
            rest += records
    assert [*first, *rest] == whole
    assert read(path, 100_000) == whole
    assert packed_path(path).stat().st_size < size / 10
    with EventReader(path) as late:
        assert late.skip_to(17)
        with pytest.raises(BlockingIOError):
            late.read(wait=False)
        assert late.read()[0] == whole[16]


def test_a_packing_that_was_cut_short_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "events"
    write(path, [(Stream.STDOUT, b"kept")])
    whole = read(path)
    packed_path(path).with_name("events.packed.new").write_bytes(b"half of it")
    assert read(path) == whole
    pack(path)
    assert read(path) == whole
    with pytest.raises(FileNotFoundError):
        open_log(tmp_path / "nothing")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A packed log of some blocks, and what was in it."""
    path, content = tmp_path_factory.mktemp("packed") / "log", b"".join(b"%d\n" % number for number in range(320_000))
    path.write_bytes(content)
    pack(path)
    return path, content


@settings(max_examples=40, deadline=None)
@given(offset=st.integers(0, 2_300_000), size=st.integers(1, 1_200_000))
def test_any_part_of_a_packed_log_is_what_it_was(packed: tuple[Path, bytes], offset: int, size: int) -> None:
    path, content = packed
    log = open_log(path)
    assert bytes(log.read(size, offset)) == content[offset : offset + size]
    log.close()
