"""Whom git believes: the machine's certificates, those that a variable names in their place, a CA of the settings."""

from pathlib import Path

import pytest

from services.common.errors import StartError
from services.git.gitcmd import Command, Git, Invocation
from services.git.remote.trust import certificates_file
from tests.kit.certificates import Authority

VARIABLES = ("GIT_SSL_CAINFO", "SSL_CERT_FILE")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_git_finds_the_machines_by_itself(tmp_path: Path) -> None:
    assert certificates_file(None, tmp_path) == ""


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_names_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "/somewhere/ca.pem")
    assert certificates_file(None, tmp_path) == "/somewhere/ca.pem"


def test_a_ca_of_the_settings_is_believed_besides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "machine.pem").write_text("those of the machine\n")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "machine.pem"))
    ca = Authority(tmp_path / "ca").file
    file = Path(certificates_file(ca, tmp_path))
    assert file.read_text() == f"those of the machine\n\n{ca.read_text()}"
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_file_without_certificates_is_named_at_the_start(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "ca.pem").write_text(content)
    with pytest.raises(StartError, match="BOATYARD_GIT_CA"):
        certificates_file(tmp_path / "ca.pem", tmp_path)


async def test_git_is_told_where_it_speaks_to_a_server(tmp_path: Path) -> None:
    (tmp_path / "git").write_text('#!/bin/sh\necho "$GIT_SSL_CAINFO"\n')
    (tmp_path / "git").chmod(0o700)
    git = Git(tmp_path / "git", tmp_path, certificates="/ca.pem")
    said = [(await git.run(Command("version"), Invocation(protocol=protocol))).line for protocol in ("https", "none")]
    assert said == [b"/ca.pem", b""]
