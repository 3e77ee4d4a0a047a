"""Of a secret at which a text was cut, nothing is left that says anything."""

import base64

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.common.caveats import CaveatKind
from services.common.rpc.status import _cut
from services.git.caveats import caveats_of
from services.redaction.gaps import GAP, around_gaps, text_around_gaps
from services.redaction.strand import Redactor

SECRET = "hunter2-of-the-North"
REDACTOR = Redactor({"KEY": SECRET.encode()}, finds_tokens=False)
# In base64, without the last character, which says something of what follows the secret too.
FORMS = {SECRET, base64.b64encode(SECRET.encode()).decode()[: len(SECRET) * 8 // 6]}
LEAST = 4


def leaks(text: str) -> bool:
    """True when a text has four characters or more of a form of the secret, from its beginning or up to its end."""
    return any(form[:LEAST] in text or form[-LEAST:] in text for form in FORMS)


@given(
    form=st.sampled_from(sorted(FORMS)),
    before=st.text("ab /", max_size=8),
    after=st.text("ab /", max_size=8),
    kept=st.integers(0, 24),
    begins=st.integers(0, 24),
)
@example(form=SECRET, before="", after="", kept=LEAST, begins=0)
@example(form=max(FORMS, key=len), before="", after="", kept=0, begins=LEAST)
def test_what_is_left_of_a_secret_at_a_gap_is_redacted(
    form: str, before: str, after: str, kept: int, begins: int
) -> None:
    for gap in (GAP, f" {GAP} "):
        text = before + form[:kept] + gap + form[len(form) - begins :] * (0 < begins <= len(form)) + after
        shown = text_around_gaps(REDACTOR, text)
        assert not leaks(shown)
        if kept < LEAST and begins < LEAST:
            assert shown == text
        assert shown.startswith(before.rstrip())
        assert shown.endswith(after.lstrip())


def test_a_text_without_a_gap_is_redacted_as_ever() -> None:
    assert around_gaps(REDACTOR, f"a {SECRET} b {SECRET[:8]}".encode()) == f"a [redacted:KEY] b {SECRET[:8]}".encode()


@pytest.mark.parametrize("lead", range(1005, 1026))
def test_whoever_cuts_leaves_a_gap(lead: int) -> None:
    path = b"d" * lead + SECRET.encode() + b"/" + b"x" * 5000
    (caveat,) = caveats_of({CaveatKind.PATH_TOO_LONG: [path]})
    assert not leaks(around_gaps(REDACTOR, caveat.paths[0]).decode())
    assert len(caveat.paths[0]) <= 1024
    (caveat,) = caveats_of({CaveatKind.REFUSED: [b"x"]}, {CaveatKind.REFUSED: "d" * (lead - 770) + SECRET + "x" * 300})
    assert not leaks(text_around_gaps(REDACTOR, caveat.detail))
    assert len(caveat.detail) <= 256
    message = _cut("d" * (lead - 520) + SECRET + "x" * 1000, 1000)
    assert not leaks(text_around_gaps(REDACTOR, message))
    message = _cut("x" * 1000 + SECRET + "d" * (lead - 530), 1000)
    assert not leaks(text_around_gaps(REDACTOR, message))
