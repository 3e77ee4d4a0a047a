"""What somebody else chose stays one part of a line, and is seen."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common import display

ANY_TEXT = st.text(st.characters(codec=None), max_size=200)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain \\n, grüße, 東京, 👩\u200d👩", "plain \\n, grüße, 東京, 👩\u200d👩"),
        ("a\n✓ verify", r"a\n✓ verify"),
        ("\x1b]52;c;QQ==\x07", r"\x1b]52;c;QQ==\x07"),
        ("a\u202etxt.exe\u2069", r"a\u202etxt.exe\u2069"),
        ("a\x9b2J\x85\u2028\u2029\t", r"a\x9b2J\x85\u2028\u2029\t"),
        ("\udcff\ud800 in a name", r"\xff\ud800 in a name"),
        ("ad\u200bmin\U000e0041", r"ad\u200bmin\U000e0041"),
    ],
)
def test_what_moves_a_cursor_or_is_not_seen_is_escaped(text: str, shown: str) -> None:
    assert display.one_line(text) == shown


@given(ANY_TEXT)
def test_a_part_of_a_line_is_never_more(text: str) -> None:
    shown = display.one_line(text)

    assert len(shown.splitlines()) <= 1
    assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cs", "Zl", "Zp"}
    assert not {unicodedata.bidirectional(character) for character in shown} & {
        "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI",
    }  # fmt: skip
    shown.encode()


@given(ANY_TEXT)
def test_every_line_of_others_but_the_first_is_behind_a_bar(text: str) -> None:
    first, *others = display.message(text)

    assert all(line.startswith(display.BAR) for line in [*others, *display.quoted(text)])
    assert display.one_line(first) == first
