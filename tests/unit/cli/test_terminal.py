"""What agents write, on a terminal."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cli.terminal import ScreenFilter, TerminalFilter

COLOUR = re.compile(r"\x1b\[[0-9:;]*m")
OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
PIECES = st.lists(
    st.sampled_from(
        [b"\x1b", b"[", b"]", b"P", b"31", b"m", b";", b"0", b"2J", b"\x07", b"\\", b"\r", b"\n", b"%", b"G", b"text",
         b"\xc2", b"\x9b", b"\x9d", b"\x9c", b"\xc2\x9d", "\u202e".encode(), "é".encode(), b"\x18", b"?25l", b" "]
    )
    | st.binary(max_size=3),
    max_size=40,
)  # fmt: skip


def filtered(*pieces: bytes) -> str:
    terminal = TerminalFilter()
    return "".join(map(terminal.feed, pieces))


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (b"\x1b]52;c;QUJD\x07copied", "copied"),
        (b"\x1b]0;title\x1b\\text", "text"),
        (b"\xc2\x9d0;title\xc2\x9ctext", "text"),
        (b"\x1bP1;2|x\x1b\\\x1b_k\x1b\\\x1b^p\x1b\\text", "text"),
        (b"\x1b[2J\x1b[1;1H\x1b[?1049h\x1b[21t\x1bctext", "text"),
        (b"\x1b]0;no end\nthe next line", "\nthe next line"),
        (b"one\r\ntwo\rthree\r\r\nfour\x08\x07", "one\ntwo\nthree\nfour\\x08\\x07"),
        (b"\x1b[>4;1mtext\x1b[?4m", "text"),
        ("\u202eabc\u2028".encode() + b"\xff", "\\u202eabc\\u2028\ufffd"),
        (b"\x1b[1\n;1H", "\\x1b[1\n;1H"),
    ],
)
def test_text_passes_and_what_acts_on_the_terminal_does_not(written: bytes, shown: str) -> None:
    assert filtered(written, b"") == shown
    assert filtered(*(written[i : i + 1] for i in range(len(written)))) == shown
    assert all(filtered(written[:end], written[end:]) == shown for end in range(len(written)))


def test_colours_pass_and_do_not_reach_what_others_write() -> None:
    terminal = TerminalFilter()

    assert terminal.feed(b"\x1b[1;31mred") == "\x1b[1;31mred\x1b[m"
    assert terminal.feed(b" still\x1b[") == "\x1b[1;31m still\x1b[m"
    assert terminal.feed(b"0mplain") == "\x1b[1;31m\x1b[0mplain"
    assert terminal.feed(b"plain") == "plain"
    assert terminal.feed(b"\x1b[0;38:5:9mx\x1b[mplain") == "\x1b[0;38:5:9mx\x1b[mplain"


@given(PIECES)
def test_nothing_but_text_and_colours_passes(pieces: list[bytes]) -> None:
    assert not OBEYED.search(COLOUR.sub("", filtered(*pieces)))


@given(PIECES)
def test_it_does_not_matter_where_pieces_end(pieces: list[bytes]) -> None:
    whole = b"".join(pieces) + b"."
    single = [whole[i : i + 1] for i in range(len(whole))]

    assert COLOUR.sub("", filtered(*single)) == COLOUR.sub("", filtered(whole))


@given(PIECES)
def test_on_a_screen_no_text_for_the_terminal_itself_begins(pieces: list[bytes]) -> None:
    terminal = ScreenFilter()
    shown = "".join(map(terminal.feed, pieces))

    assert not re.search(r"\x1b[\]PX^_%]|[\x90\x98\x9d-\x9f]", shown)
    assert all(
        re.match(r"[ -/]{0,8}[0-~]|\[[0-?]*[ -/]*[@-~]", shown[found.end() :]) for found in re.finditer("\x1b", shown)
    )


def test_a_program_that_fills_the_screen_may() -> None:
    written = "\x1b[?1049h\x1b[2;5Hgrüße\r\x1b(0q\x1b7\x08\x1b[6n"

    assert ScreenFilter().feed(written.encode()) == written
    assert ScreenFilter().feed(b"\x1b]52;c;" + b"A" * 9000 + b"\x07").startswith("\\x1b]52")


@pytest.mark.parametrize(
    "unit",
    ["\x90", "\x1b]", "\x1b[", "\x1b]x", "\r", "\x9b1;", "\x1b ", "\x1b[31m", "\x1bP\x1b", "\x9b;;;;", "\x1b]0;x\n"],
)
def test_it_takes_time_in_proportion_to_the_output(unit: str) -> None:
    data, terminal, screen = (unit * (1 << 18)).encode(), TerminalFilter(), ScreenFilter()
    begin = time.process_time()
    terminal.feed(data[: 1 << 18] + b"x\n")
    screen.feed(data[: 1 << 18] + b"x\n")

    assert time.process_time() - begin < 5
