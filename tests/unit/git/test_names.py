"""Commit ids and addresses: what git itself allows, and never a flag, a transport helper or somebody's password."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.git.model import Remote
from services.git.names import is_commit_id
from services.git.remote.addresses import AddressBook
from services.git.remote.file_repository import FileRoots


@pytest.mark.parametrize(("text", "is_id"), [("a" * 40, True), ("a" * 64, True), ("A" * 40, False), ("a" * 39, False)])
def test_commit_ids(text: str, is_id: bool) -> None:
    assert is_commit_id(text) is is_id


@pytest.fixture
def book(tmp_path: Path) -> AddressBook:
    (tmp_path / "home").mkdir()
    (tmp_path / "roots").mkdir()
    (tmp_path / "roots" / "escape").symlink_to("/etc")
    (tmp_path / "roots" / "inside").symlink_to(tmp_path / "home")
    return AddressBook(FileRoots((tmp_path / "roots", tmp_path / "home"), (), tmp_path / "home"))


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/a/b.git",
        "https://example.com:8443/b",
        "https://[::1]/b",
        "ssh://git@example.com:22/a/b",
        "ssh://example.com/~a/b",
        "git@example.com:a/b.git",
        "example.com:a/b",
    ],
)
def test_allowed_urls(book: AddressBook, url: str) -> None:
    assert book.complaint(url) is None
    assert book.address(url).protocol == ("https" if url.startswith("https") else "ssh")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "-u./evil",
        "--upload-pack=touch x",
        "ext::sh -c x",
        "ext::sh",
        "fd::17",
        "git://example.com/x",
        "http://example.com/x",
        "http://127.0.0.1/x",
        "ftp://example.com/x",
        "https://user@example.com/x",
        "https://user:secret@example.com/x",
        "ssh://git:secret@example.com/x",
        "ssh://-oProxyCommand=x/y",
        "ssh://git@-oProxyCommand=x/y",
        "-oProxyCommand=x:y",
        "git@-oProxyCommand=x:y",
        "-x@host:y",
        "host:-x",
        "https://example.com/a b",
        "https://example.com/a\nb",
        "https://example.com/?token=x",
        "https://example.com:99999/x",
        "https:///x",
        "https://a..example/x",
        f"https://{'a' * 64}.example/x",
        "ssh://a..example/x",
        "a..example:x",
        "relative/path",
        "../up",
        "~/x",
        "/etc",
        "file:///etc",
        "file://host/etc",
    ],
)
def test_refused_urls(book: AddressBook, url: str) -> None:
    assert book.complaint(url)


def test_files_only_under_the_roots_and_never_in_our_home(book: AddressBook, tmp_path: Path) -> None:
    roots = tmp_path / "roots"
    assert book.complaint(f"{roots}/repo.git") is None
    assert book.complaint(f"file://{roots}/repo.git") is None
    far_side = book.address(f"file://{roots}/repo.git").far_side
    assert far_side is not None
    assert far_side.path == roots / "repo.git"
    for path in (f"{roots}/../etc", f"{roots}/escape/x", f"{roots}/inside/git/results/r.git", f"{tmp_path}/home"):
        assert book.complaint(path)


def test_plain_http_is_for_this_machine_alone(tmp_path: Path) -> None:
    book = AddressBook(FileRoots((), (), tmp_path), allow_loopback_http=True)
    assert book.complaint("http://127.0.0.1:8000/x") is None
    assert book.complaint("http://example.com/x")


def test_a_token_is_for_https(book: AddressBook) -> None:
    how = book.address("https://example.com/x").invocation(Remote("r", "https://example.com/x", "token"))
    assert [key for key, _ in how.config] == ["http.https://example.com/.extraHeader"]
    assert "token" in how.secrets


@given(st.text())
def test_whatever_is_allowed_is_safe_to_hand_to_git(url: str) -> None:
    book = AddressBook(FileRoots((), (), Path("/nonexistent-home")))
    if book.complaint(url) is None:
        assert not url.startswith("-")
        assert "::" not in url.partition("/")[0]
        assert book.address(url).protocol in {"https", "ssh"}
