"""Bytes as text, and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.text import bytes_of, bytes_of_list, is_utf8, lossy, raw, raw_list, without_cut_character


@given(st.binary(max_size=40))
def test_bytes_come_back_from_their_text_and_raw_bytes(data: bytes) -> None:
    text = lossy(data)
    assert bytes_of(text, raw(data)) == data
    assert is_utf8(data) is (raw(data) == b"")


@given(st.lists(st.binary(max_size=10), max_size=5))
def test_lists_come_back(values: list[bytes]) -> None:
    beside = raw_list(values)
    assert len(beside) == (0 if all(map(is_utf8, values)) else len(values))
    assert bytes_of_list([lossy(value) for value in values], beside) == tuple(values)


@given(st.text(max_size=20), st.integers(0, 80))
def test_the_end_of_a_text_begins_with_a_whole_character(text: str, size: int) -> None:
    data = text.encode()
    end = without_cut_character(data[len(data) - min(size, len(data)) :])
    assert is_utf8(end)
    assert text.endswith(end.decode())
    assert len(end) > size - 4 or end == data


@pytest.mark.parametrize("end", [b"", b"plain", "ü".encode(), b"\xff\xff", b"\x80" * 5])
def test_what_is_no_cut_character_stays(end: bytes) -> None:
    assert without_cut_character(end) == end
