"""The event log: whatever is cut off or damaged, complete records stay, in order, and none is read twice."""

import resource
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.execution.eventlog import (
    MAX_OUTPUT,
    DamagedRecordError,
    EventKind,
    EventLogError,
    EventReader,
    EventWriter,
    Record,
    Stream,
)
from services.execution.eventlog.allocation import FIRST_BYTES
from services.execution.eventlog.records import HEADER

OUTPUTS = st.lists(
    st.tuples(st.sampled_from([Stream.STDOUT, Stream.STDERR]), st.binary(min_size=1, max_size=300)), max_size=20
)
SAME_DIRECTORY = settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def write(path: Path, outputs: list[tuple[Stream, bytes]]) -> None:
    path.unlink(missing_ok=True)
    with EventWriter(path) as writer:
        writer.state_change("RUNNING")
        for stream, data in outputs:
            writer.output(stream, data, 1)


def read(path: Path, size: int = 1 << 20) -> list[Record]:
    collected: list[Record] = []
    with EventReader(path) as reader:
        while records := reader.read(size):
            collected += records
    return collected


@SAME_DIRECTORY
@given(outputs=OUTPUTS, size=st.integers(1, 1000))
def test_what_is_written_is_read_in_blocks_of_any_size(tmp_path: Path, outputs: list, size: int) -> None:
    path = tmp_path / "events"
    write(path, outputs)
    records = read(path, size)
    assert [(record.stream, record.payload) for record in records[1:]] == outputs
    assert [record.sequence for record in records] == list(range(1, len(outputs) + 2))
    assert records[0].fields() == {"state": "RUNNING", "reason": "", "message": ""}


@SAME_DIRECTORY
@given(outputs=OUTPUTS.filter(bool), cut=st.integers(1, 400))
def test_a_torn_end_is_waited_for_by_readers_and_cut_off_by_the_next_writer(
    tmp_path: Path, outputs: list, cut: int
) -> None:
    path, torn = tmp_path / "events", tmp_path / "torn"
    write(path, outputs)
    whole = read(path)
    shutil.copy(path, torn)
    with torn.open("r+b") as file:
        file.truncate(max(0, path.stat().st_size - cut))
    kept = read(torn)
    assert kept == whole[: len(kept)]
    with EventReader(torn) as follower:
        while follower.read():
            pass
        with EventWriter(torn) as writer:
            assert writer.last_sequence == len(kept)
            assert writer.output_bytes == sum(len(one.payload) for one in kept if one.kind is EventKind.OUTPUT)
            writer.note("repaired")
        (news,) = follower.read()
    assert news.sequence == len(kept) + 1
    assert news.fields() == {"text": "repaired"}
    assert read(torn) == [*kept, news]


@SAME_DIRECTORY
@given(outputs=OUTPUTS.filter(bool), first=st.integers(1, 30))
def test_a_reader_begins_at_any_sequence(tmp_path: Path, outputs: list, first: int) -> None:
    path = tmp_path / "events"
    write(path, outputs)
    with EventReader(path) as reader:
        skipped = reader.skip_to(first)
        assert skipped == (first <= len(outputs) + 2)
        if skipped:
            assert reader.read() == read(path)[first - 1 :]


def test_what_a_lost_machine_leaves_is_damage_for_readers_and_repaired_by_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "events"
    write(path, [(Stream.STDOUT, b"good"), (Stream.STDOUT, b"lost")])
    content = path.read_bytes()
    path.write_bytes(content[:-4] + bytes(4) + bytes(5000))
    with EventReader(path, verify=True) as reader:
        assert [record.payload for record in reader.read()][1:] == [b"good"]
        with pytest.raises(DamagedRecordError, match="in event 3"):
            reader.read()
    with EventWriter(path) as writer:
        assert writer.last_sequence == 2
    assert path.stat().st_size == len(content) - 32


def test_a_kind_that_does_not_exist_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "events"
    write(path, [(Stream.STDOUT, b"told")])
    content = bytearray(path.read_bytes())
    content[-len(b"told") - 4] = 250
    path.write_bytes(content)
    with EventReader(path) as reader:
        assert len(reader.read()) == 1
        with pytest.raises(DamagedRecordError, match="in event 2"):
            reader.read()


def test_a_flood_is_cut_into_records_that_the_contract_allows(tmp_path: Path) -> None:
    path = tmp_path / "events"
    flood = bytes(range(256)) * 4096 * 70 + b"rest"
    with EventWriter(path) as writer:
        writer.output(Stream.STDOUT, memoryview(flood), 1)
    records = read(path)
    assert max(len(record.payload) for record in records) == MAX_OUTPUT
    assert b"".join(record.payload for record in records) == flood


@pytest.mark.parametrize(("size", "kept"), [(MAX_OUTPUT // 2, 0), (3 * MAX_OUTPUT, 1)])
def test_a_full_disk_keeps_what_readers_may_have_seen(tmp_path: Path, size: int, kept: int) -> None:
    path = tmp_path / "events"
    write(path, [(Stream.STDOUT, b"before")])
    room = path.stat().st_size + (MAX_OUTPUT + 1000 if kept else 1000)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    with EventWriter(path) as writer:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, unlimited[1]))  # as good as a full disk
        try:
            writer.output(Stream.STDOUT, bytes(size), 1)
            writer.note("after")
            assert writer.is_waiting
            assert not writer.push()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        assert writer.output_bytes == len(b"before") + kept * MAX_OUTPUT
        assert [record.sequence for record in read(path)] == list(range(1, 3 + kept))
        assert writer.push()
        assert not writer.is_waiting
    records = read(path)
    assert [record.sequence for record in records] == list(range(1, len(records) + 1))
    assert b"".join(record.payload for record in records if record.kind is EventKind.OUTPUT) == b"before" + bytes(size)
    assert [record.fields()["text"][:15] for record in records[-2:]] == ["after", "the disk had no"]


@pytest.mark.parametrize("restarts", [False, True])
def test_a_logs_first_mib_is_its_own_however_little_is_free(tmp_path: Path, restarts: bool) -> None:
    path, piece, more_than_any_disk_has = tmp_path / "events", bytes(1000), 1 << 60
    written = 0
    writer = EventWriter(path, more_than_any_disk_has)
    while not writer.is_waiting:
        if restarts and written == 100:
            writer.close()
            writer = EventWriter(path, more_than_any_disk_has)
        writer.output(Stream.STDOUT, piece, 1)
        written += 1
    writer.close()
    assert FIRST_BYTES - len(piece) < writer.output_bytes + written * HEADER.size <= FIRST_BYTES + 2 * len(piece)


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_bytes(b"something else entirely")
    with pytest.raises(EventLogError, match="is not an event log"):
        EventReader(path)
    with pytest.raises(EventLogError):
        EventWriter(path)
    assert path.read_bytes() == b"something else entirely"
