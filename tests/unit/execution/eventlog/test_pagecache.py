"""How much of the machine's memory a log takes, and how readers handle a log that is only partly in memory."""

import ctypes
import mmap
import os
import time
from pathlib import Path

import pytest

from services.execution.eventlog import EventReader, EventWriter, Stream
from tests.unit.execution.eventlog.test_reading_and_writing import read

MIB = 1024 * 1024
ENOUGH_MIB = 1024


def in_memory(path: Path) -> int:
    """Return how many bytes of a file the page cache holds."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as view:
        pages = -(-len(view) // mmap.PAGESIZE)
        residency = (ctypes.c_ubyte * pages)()
        start = ctypes.c_char.from_buffer(view)
        try:
            assert ctypes.CDLL(None).mincore(ctypes.byref(start), ctypes.c_size_t(len(view)), residency) == 0
        finally:
            del start
    return sum(page & 1 for page in residency) * mmap.PAGESIZE


def drop_from_memory(path: Path) -> None:
    """Drop a file from the page cache; skip the test if the file system keeps its files in memory."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if in_memory(path):
        pytest.skip("this file system keeps its files in memory")


def test_a_flood_is_let_go_while_it_is_written_and_nothing_of_it_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_bytes(bytes(MIB))
    drop_from_memory(path)
    path.unlink()
    block = os.urandom(MIB)
    with EventWriter(path) as writer:
        for number in range(1, ENOUGH_MIB + 1):
            writer.output(Stream.STDOUT, block, number)
            if number % 32 == 0:
                if number >= 64 and in_memory(path) < writer.output_bytes / 2:
                    break
                time.sleep(0.1)  # the disk's turn
        else:
            pytest.fail(f"{in_memory(path)} bytes of {writer.output_bytes} are in memory")
    records = read(path)
    assert [record.sequence for record in records] == list(range(1, number * 16 + 1))
    assert all(record.payload == block[index % 16 * 65536 :][:65536] for index, record in enumerate(records))


def test_a_record_of_which_only_the_beginning_is_in_memory_is_not_the_end(tmp_path: Path) -> None:
    path = tmp_path / "events"
    with EventWriter(path) as writer:
        for _ in range(3):
            writer.output(Stream.STDOUT, os.urandom(65536), 1)
    whole = read(path)
    for _ in range(20):  # a read that may not wait makes the kernel read ahead: a fast disk is ready before the next
        drop_from_memory(path)
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)  # nothing is read ahead
            os.pread(file.fileno(), 100, 0)
        with EventReader(path) as reader:
            try:
                records = reader.read(wait=False)
            except BlockingIOError:
                assert reader.read() == whole
                assert reader.read(wait=False) == []
                return
            assert records
            assert records == whole[: len(records)]
            assert records + reader.read() == whole
    pytest.skip("this disk is faster than two reads")
