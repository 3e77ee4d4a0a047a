"""Secrets: whatever they look like and however they are cut into pieces, they are not recorded, and all else is."""

import base64
import json
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.redaction.strand import Redactor, TextFlow, join

PEM = b"-----BEGIN RSA PRIVATE KEY-----\n%s\nYWJj\n-----END RSA PRIVATE KEY-----" % b"\n".join([b"MIIE" * 16] * 9)
# Made up, in the form of each issuer's; put together here, so that nobody's scanner finds one in this file.
TOKENS = {
    "anthropic": b"sk-" + b"ant-api03-" + b"aB3_-" * 18,
    "openai": b"sk-" + b"proj-" + b"aB3_-" * 12,
    "github": b"ghp" + b"_" + b"a1B2" * 9,
    "gitlab": b"glpat" + b"-" + b"xY1z-" * 4,
    "aws": b"AKIA" + b"IOSFODNN7EXAMPLE",
    "slack": b"xoxb" + b"-123456789012-123456789012-abcdEFGH",
    "google": b"AIza" + b"Sy123" * 7,
    "npm": b"npm" + b"_" + b"a1B2" * 9,
    "pypi": b"pypi-AgEIcHlwaS5vcmc" + b"CJ1a2" * 12,
    "stripe": b"sk" + b"_live_" + b"a1B2c3" * 4,
    "huggingface": b"hf" + b"_" + b"aB" * 17,
    "boatyard": b"boatyard" + b"_" + b"aB3-_xY" * 6 + b"z",
    "webhook": b"whsec" + b"_" + b"aB3+/xY" * 6 + b"z=",
    "docker": b"dckr" + b"_pat_" + b"aB3-x_" * 5,
    "jwt": b"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0." + b"sIg-" * 10,
    "private-key": PEM,
}
INNOCENT = (
    *(
        b" ",
        b"\n",
        b"task-sk-",
        b"a disk-usage-of-a-whole-file-system-of-mine",
        b"eyJ eyJa.b.c ",
        b"-----BEGIN CERT-----\n",
    ),
    *(b"-----", b"gh", b"ghp_", b"the_snake_case_of_a_long_name_in_python", b"sk-", b"hunt", b"\xff\x00", b"AKIA"),
)


def in_pieces(redactor: Redactor, data: bytes, sizes: list[int], pauses: bool = False) -> bytes:
    """Send data through in pieces; with pauses, what may be released is released after each."""
    strand, buffer, held, out = redactor.strand(), bytearray(len(data) + 1), 0, b""
    position = 0
    while position < len(data):
        size = sizes[position % len(sizes)]
        piece = data[position : position + size]
        position += size
        buffer[held : held + len(piece)] = piece
        end = held + len(piece)
        pieces, keep = strand.take(buffer, end)
        out += join(buffer, pieces)
        held = end - keep
        buffer[:held] = buffer[keep:end]
        if pauses and strand.releasable:
            out += bytes(buffer[strand.release(held)])
    pieces, _ = strand.take(buffer, held, last=True)
    return out + join(buffer, pieces)


SECRETS = st.dictionaries(
    st.sampled_from(["A", "B", "C"]),
    st.one_of(
        st.binary(min_size=6, max_size=60).filter(lambda value: len(value.strip()) >= 6),
        st.text("ab", min_size=6, max_size=12).map(str.encode),
        st.sampled_from([b"hunter22", b"hunter22-and-more", b"line one\nline two", TOKENS["github"]]),
    ),
    max_size=3,
)
SIZES = st.lists(st.one_of(st.integers(1, 5), st.integers(1, 200)), min_size=1, max_size=8)


@settings(max_examples=120, deadline=None, derandomize=True)  # the same examples each time; deeper by hand
@given(secrets=SECRETS, parts=st.lists(st.integers(0, 400), max_size=12), sizes=SIZES, noise=st.binary(max_size=40))
def test_pieces_of_any_size_are_redacted_as_the_whole_is(
    secrets: dict[str, bytes], parts: list[int], sizes: list[int], noise: bytes
) -> None:
    words = [*INNOCENT, noise, *secrets.values(), *TOKENS.values()]
    data = b"".join(words[number % len(words)] for number in parts)
    redactor = Redactor(secrets)
    whole = redactor.bytes(data)
    assert in_pieces(redactor, data, sizes) == whole
    for redacted in (whole, in_pieces(redactor, data, sizes, pauses=True)):
        assert not [value for value in secrets.values() if value.strip() in redacted]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.binary(max_size=300), sizes=SIZES)
def test_what_holds_no_secret_stays_as_it_is(data: bytes, sizes: list[int]) -> None:
    redactor = Redactor({"A": b"a value that nothing drawn at random has"})
    assert in_pieces(redactor, data, sizes) == in_pieces(redactor, data, sizes, pauses=True) == data


@pytest.mark.parametrize("name", TOKENS)
def test_every_form_of_token_is_found_between_other_text(name: str) -> None:
    text = b'before "%s" after' % TOKENS[name]
    assert Redactor().bytes(text) == b'before "[redacted:%s]" after' % name.encode()
    cut = TOKENS[name][:12]
    assert Redactor().bytes(cut) == cut, "the beginning of one is no secret"


def test_innocent_text_is_left_alone() -> None:
    text = b"".join(INNOCENT)
    assert Redactor().bytes(text) == text


@pytest.mark.parametrize(
    "write",
    [
        lambda value: base64.b64encode(b"x:" + value + b"@host"),
        lambda value: base64.urlsafe_b64encode(b"user:" + value),
        lambda value: b"%s" % base64.b64encode(value),
        lambda value: quote(value, safe="").encode(),
        lambda value: value.hex().encode(),
        lambda value: json.dumps({"key": value.decode()}).encode(),
        lambda value: value.replace(b"\n", b"\r\n"),
    ],
    ids=["base64 of more", "base64 for URLs", "base64", "percent", "hex", "JSON", "a terminal's lines"],
)
def test_the_forms_in_which_programs_print_a_secret_are_found(write: Callable[[bytes], bytes]) -> None:
    value = b'pass "word"/one?\nand the second line'
    written = write(value)
    clean = Redactor({"PW": value}).bytes(b"<" + written + b">")
    assert clean.startswith(b"<")
    assert b"[redacted:PW]" in clean
    assert len(clean) < len(written)


def test_a_prompt_is_told_and_a_half_secret_is_not() -> None:
    strand = Redactor({"PW": b"password-of-mine"}).strand()
    buffer = bytearray(b"Enter pass")
    pieces, keep = strand.take(buffer, len(buffer))
    assert (join(buffer, pieces), strand.releasable) == (b"Enter ", True)
    del buffer[:keep]
    assert buffer[strand.release(len(buffer))] == b"pass"
    buffer += b"word-of"
    assert strand.take(buffer, len(buffer)) == ([], 0)
    assert not strand.releasable
    buffer += b"-mine\n"
    pieces, _ = strand.take(buffer, len(buffer))
    assert join(buffer, pieces) == b"[redacted:PW]\n"


def test_text_that_comes_in_pieces_stays_text() -> None:
    flow = TextFlow(Redactor({"PW": "schlüssel-ß".encode()}))
    parts = ["Ein schl", "üss", "el ist kein schlüssel", "-", "ß, sagt er. 😀\ud800"]
    released = [flow.take(part) for part in parts] + [flow.take("", last=True)]
    assert "".join(released) == "Ein schlüssel ist kein [redacted:PW], sagt er. 😀?"


def test_values_deep_in_an_event_are_redacted() -> None:
    redactor = Redactor({"PW": b'quote"d secret'})
    assert redactor.value({"command": ['echo quote"d secret', 7, None, {"x": "y"}]}) == {
        "command": ["echo [redacted:PW]", 7, None, {"x": "y"}]
    }
