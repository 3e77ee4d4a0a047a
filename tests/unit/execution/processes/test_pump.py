"""The pump: a lone line at once, a flood in few records, and always in order."""

import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.execution.eventlog import MAX_OUTPUT, EventReader, EventWriter, Record, Stream
from services.execution.processes.pump import Pump
from services.redaction.strand import Redactor


class Pipes:
    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        self.writer = EventWriter(path)
        self.pump = Pump(self.writer, limit)
        self.out, self.out_end = os.pipe2(os.O_NONBLOCK)
        self.err, self.err_end = os.pipe2(os.O_NONBLOCK)

    def records(self) -> list[tuple[Stream, bytes]]:
        all_records: list[Record] = []
        with EventReader(self.path) as reader:
            while records := reader.read():
                all_records += records
        return [(record.stream, record.payload) for record in all_records]

    def write(self, data: bytes, stream: Stream = Stream.STDOUT) -> None:
        fd, end = (self.out, self.out_end) if stream is Stream.STDOUT else (self.err, self.err_end)
        os.write(end, data)
        self.pump.receive(fd, stream)


@pytest.fixture
def pipes(tmp_path: Path) -> Iterator[Pipes]:
    opened = Pipes(tmp_path / "events", 1_000_000)
    yield opened
    opened.writer.close()
    for fd in (opened.out, opened.out_end, opened.err, opened.err_end):
        os.close(fd)


def test_a_lone_line_is_due_at_once_and_the_next_ones_together(pipes: Pipes) -> None:
    pipes.write(b"first\n")
    assert pipes.pump.due() <= time.monotonic()
    pipes.pump.flush()
    for number in range(50):
        pipes.write(b"%d\n" % number)
    assert time.monotonic() < pipes.pump.due() < time.monotonic() + 0.05
    pipes.pump.flush()
    assert pipes.records() == [
        (Stream.STDOUT, b"first\n"),
        (Stream.STDOUT, b"".join(b"%d\n" % number for number in range(50))),
    ]
    assert pipes.pump.due() == math.inf


def test_streams_stay_in_the_order_in_which_they_were_read(pipes: Pipes) -> None:
    for number in range(4):
        pipes.write(b"out%d" % number)
        pipes.write(b"err%d" % number, Stream.STDERR)
    pipes.pump.flush()
    assert [payload for _, payload in pipes.records()] == [b"%s%d" % (s, n) for n in range(4) for s in (b"out", b"err")]
    assert pipes.pump.complaint == b"err0err1err2err3"


def test_a_flood_goes_out_without_waiting(pipes: Pipes) -> None:
    line = b"x" * 32767 + b"\n"
    written = 0
    while not pipes.records():
        pipes.write(line)
        written += len(line)
        assert written <= 1_000_000, "it waits for more than it may"
    sizes = [len(payload) for _, payload in pipes.records()]
    assert sum(sizes) == written
    assert sizes[:-1] == [MAX_OUTPUT] * (len(sizes) - 1)


def test_a_secret_in_pieces_is_not_recorded_and_a_prompt_waits_a_moment_at_most(pipes: Pipes) -> None:
    pipes.writer.redactor = Redactor({"PW": b"hunter2-hunter2"})
    pump = Pump(pipes.writer, 1_000_000)
    pipes.pump = pump
    pipes.write(b"password is hun")
    pipes.pump.flush()
    assert pipes.records() == [(Stream.STDOUT, b"password is ")]
    assert pump.due() < time.monotonic() + 0.05
    while pump.due() > time.monotonic():
        time.sleep(0.001)
    pump.flush()
    assert pipes.records()[1:] == [(Stream.STDOUT, b"hun")]
    pipes.write(b"ter2-hun")
    pipes.write(b"?", Stream.STDERR)
    pipes.write(b"ter2, and hunter2-")
    pump.end()
    assert pipes.records()[2:] == [
        (Stream.STDERR, b"?"),
        (Stream.STDOUT, b"[redacted:PW], and hunter2-"),
    ]


def test_what_exceeds_the_limit_is_dropped(tmp_path: Path) -> None:
    pipes = Pipes(tmp_path / "events", 10)
    pipes.write(b"12345678")
    assert not pipes.pump.exceeded
    pipes.write(b"90ab", Stream.STDERR)
    pipes.write(b"more")
    pipes.pump.flush()
    assert pipes.pump.exceeded
    assert pipes.pump.output_bytes == 10
    assert b"".join(payload for _, payload in pipes.records()) == b"1234567890"
    pipes.writer.close()
    for fd in (pipes.out, pipes.out_end, pipes.err, pipes.err_end):
        os.close(fd)
