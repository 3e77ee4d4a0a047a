"""The rules for text that have a name: branches are those that git allows, and nothing is a flag or two lines."""

import subprocess

import pytest
from boatyard.rules.v1 import rules_pb2
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.common.ids import is_id
from services.common.rpc.rules import Rules
from tests.kit.protos import compiled

NAMES = list(rules_pb2.DESCRIPTOR.extensions_by_name)
NOT_EMPTY = {"left_out", "not_blank", "shell_line", "variable", "tool", "reason"}
RULES = Rules()
PIECES = ["a", "/", ".", "..", "@{", "@", "-", "~", " ", "\n", "\\", ".lock", "\ufffd", "HEAD", "*"]
Names = compiled(
    "names",
    "message Names {"
    + "".join(
        f"string {name} = {number} [(buf.validate.field).string.(boatyard.rules.v1.{name}) = true];"
        for number, name in enumerate(NAMES, start=1)
    )
    + "}",
)["Names"]


def allows(rule: str, text: str) -> bool:
    """True when the rule of this name allows a text."""
    return rule not in dict(RULES.violations(Names(**{rule: text})))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join))
@example("a/.b")
def test_branches_are_those_that_git_allows(name: str) -> None:
    answer = subprocess.run(
        ["git", "check-ref-format", b"refs/heads/" + name.encode()],
        check=False,
        capture_output=True,
        env={"GIT_CONFIG_GLOBAL": "/dev/null", "PATH": "/usr/bin"},
    )
    allowed = answer.returncode == 0 and not name.startswith("-") and name not in {"HEAD", "@"}
    assert allows("branch", name) == allowed


@pytest.mark.parametrize("name", ["main.lock", "team.lock/main", "refs/heads/main.lock"])
def test_no_part_of_a_branch_is_named_as_git_names_its_locks(name: str) -> None:
    assert not allows("branch", name)
    assert not allows("revision", name)


@given(st.text())
def test_no_name_is_ever_a_flag_or_two_lines(name: str) -> None:
    if allows("branch", name) or allows("revision", name):
        assert not name.startswith("-")
        assert not {"\0", "\n", " ", ":"} & set(name)


@pytest.mark.parametrize("revision", ["HEAD", "main", "refs/tags/v1", "0" * 40])
def test_revisions(revision: str) -> None:
    assert allows("revision", revision)


@pytest.mark.parametrize("revision", ["main~1", "-x", "a..b", "HEAD^{tree}", "@{-1}", ":/fix", "refs/heads/"])
def test_expressions_are_no_revisions(revision: str) -> None:
    assert not allows("revision", revision)


@given(st.text(alphabet="aA0-_\n\0\u00e9", min_size=1) | st.sampled_from(["a" * 63, "a" * 64]))
def test_ids_are_those_that_the_services_make(text: str) -> None:
    assert allows("id", text) == is_id(text)


@pytest.mark.parametrize("path", ["/a", "./a", "a/", "a//b", "a/../b", "..", ".", "a/.", "a\0", "a\nb"])
def test_a_relative_path_stays_below(path: str) -> None:
    assert not allows("relative_path", path)


@pytest.mark.parametrize("path", ["a", ".a", "..a/b..", "a/...", "\u00e9/ b"])
def test_relative_paths(path: str) -> None:
    assert allows("relative_path", path)


@pytest.mark.parametrize("name", NAMES)
def test_rules_of_fields_allow_the_empty_text_which_required_refuses(name: str) -> None:
    assert allows(name, "") == (name not in NOT_EMPTY)


@pytest.mark.parametrize("pattern", [".aider*", "*.log", "/build/", "a b", "**/x", "\\!a", "\u00e9"])
def test_patterns_of_what_is_left_out(pattern: str) -> None:
    assert allows("left_out", pattern)


@pytest.mark.parametrize("pattern", ["", "!a", "#a", " a", "a\nb", "a\x00", "\t"])
def test_a_pattern_of_what_is_left_out_brings_nothing_in(pattern: str) -> None:
    assert not allows("left_out", pattern)
