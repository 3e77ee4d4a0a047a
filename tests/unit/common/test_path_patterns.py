import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.path_patterns import PathPatterns

WORKFLOWS = ".github/workflows/**"


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        (WORKFLOWS, ".github/workflows/ci.yml"),
        (WORKFLOWS, ".github/workflows/deep/er/ci.yml"),
        (WORKFLOWS, ".github/workflows"),
        (WORKFLOWS, ".github"),
        (WORKFLOWS, ".GitHub/WORKFLOWS/ci.yml"),
        (WORKFLOWS, ".github/work\u200bflows/ci.yml"),
        (WORKFLOWS, ".github /workflows./ci.yml"),
        (WORKFLOWS, "\uff0egithub/workflows/ci.yml"),
        (".github/workflows", ".github/workflows/ci.yml"),
        ("**/Makefile", "Makefile"),
        ("**/Makefile", "a/b/makefile"),
        ("a/**/b/*.py", "a/b/x.py"),
        ("a/**/b/*.py", "a/c/d/b/x.py"),
        ("*.lock", "uv.lock"),
        ("straße", "STRASSE"),
        ("cafe\u0301", "caf\u00e9"),
        ("**", "anything/at/all"),
    ],
)
def test_what_a_pattern_names(pattern: str, path: str) -> None:
    assert PathPatterns(["elsewhere", pattern]).name(path.encode())


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        (WORKFLOWS, ".github/dependabot.yml"),
        (WORKFLOWS, "src/.github/workflows/ci.yml"),
        (WORKFLOWS, ".github-workflows"),
        ("*.lock", "sub/uv.lock"),
        ("a/*/c", "a/b/d"),
        ("**/Makefile", "Makefile.am"),
        ("*/config", "README.md"),
    ],
)
def test_what_it_does_not_name(pattern: str, path: str) -> None:
    assert not PathPatterns([pattern]).name(path.encode())


def test_paths_that_are_not_text_are_paths() -> None:
    assert PathPatterns([WORKFLOWS]).name(b".github/workflows/\xff.yml")
    assert not PathPatterns([WORKFLOWS]).name(b"\xff/workflows")


names = st.text(st.characters(exclude_characters="/*?[", exclude_categories=["Cs", "Cc", "Cf"]), min_size=1, max_size=6)


@given(st.lists(names, min_size=1, max_size=4), st.lists(names, max_size=3))
def test_a_path_names_itself_and_all_below_it(parts: list[str], below: list[str]) -> None:
    patterns = PathPatterns(["/".join(parts)])
    assert patterns.name("/".join([*parts, *below]).encode())


def test_a_path_that_was_made_to_take_long_does_not() -> None:
    began = time.monotonic()
    patterns = PathPatterns(["**/a/**/a/**/a/**/a/**/b", "*a*a*a*a*a*b"])
    assert not patterns.name(b"/".join([b"a"] * 2000))
    assert not patterns.name(b"a" * 4000)
    assert time.monotonic() - began < 5
