"""JSON of strangers is read within bounds, and what is read can be written again."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.untrusted_json import MAX_DEPTH, parse_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
)


@given(JSON)
def test_what_others_write_is_read_as_it_is(value: object) -> None:
    assert parse_json(json.dumps(value)) == value


@pytest.mark.parametrize("opening", ["[", '{"a":'])
@pytest.mark.parametrize("depth", [MAX_DEPTH + 2, 900, 200_000])
def test_what_is_nested_too_deeply_is_no_json(opening: str, depth: int) -> None:
    closing = "]" if opening == "[" else "}"
    for text in (opening * depth, opening * depth + "1" + closing * depth):
        with pytest.raises(ValueError):
            parse_json(text)


@pytest.mark.parametrize("text", ["[" * MAX_DEPTH + "1" + "]" * MAX_DEPTH, '{"a":' * MAX_DEPTH + "1" + "}" * MAX_DEPTH])
def test_what_is_nested_as_deeply_as_allowed_is_read(text: str) -> None:
    assert json.dumps(parse_json(text), separators=(",", ":")) == text


def test_wide_is_not_deep() -> None:
    assert len(parse_json("[" + "[],{}," * 100_000 + "[]]")) == 200_001


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_what_only_python_reads_is_refused_by_the_strict(constant: str) -> None:
    assert isinstance(parse_json(f"[{constant}]")[0], float)
    with pytest.raises(ValueError):
        parse_json(f"[{constant}]", strict=True)


@pytest.mark.parametrize("sign", ["", "-"])
def test_a_number_of_any_size_is_json(sign: str) -> None:
    assert parse_json(f'{{"a": {sign}{"9" * 4300}}}', strict=True)["a"] == int(sign + "9" * 4300)
    assert abs(parse_json(f'{{"a": {sign}{"9" * 4301}}}', strict=True)["a"]) == math.inf
