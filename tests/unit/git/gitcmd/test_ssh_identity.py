"""Whose keys a remote over ssh is shown, with a program in ssh's place that looks at what it is given."""

import subprocess
from pathlib import Path

import pytest

from services.git.gitcmd import Command, Git, GitFailed, Invocation

SSH = """#!/bin/sh
{
  echo "agent=$SSH_AUTH_SOCK"
  for word; do echo "word=$word"; [ "$before" = -i ] && ssh-keygen -y -P '' -f "$word" 2>&1; before=$word; done
} > "$(dirname "$0")/seen"
echo 'Permission denied (publickey).' >&2
exit 255
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return git, in a directory in which ssh is found before the system's."""
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/someone/agent")
    (tmp_path / "git").symlink_to("/usr/bin/git")
    (tmp_path / "ssh").write_text(SSH)
    (tmp_path / "ssh").chmod(0o700)
    return tmp_path / "git"


async def seen(git: Git, key: str = "") -> str:
    """Return what ssh saw when a remote's branches were listed."""
    with pytest.raises(GitFailed, match="publickey"):
        await git.run(Command("ls-remote", (), ("git@example.com:x",)), Invocation(protocol="ssh", ssh_key=key))
    return (git.executable.parent / "seen").read_text()


async def test_the_cells_own_identity_is_nobodys(program: Path, tmp_path: Path) -> None:
    words = await seen(Git(program, tmp_path))
    assert "agent=\n" in words
    assert "word=-F\nword=none\n" in words, "and no configuration names one"
    assert {"word=IdentityFile=none", "word=IdentityAgent=none"} <= {*words.splitlines()}


async def test_unless_a_setting_lends_it(program: Path, tmp_path: Path) -> None:
    words = await seen(Git(program, tmp_path, lends_ssh_identity=True))
    assert "agent=/run/someone/agent\n" in words
    assert "Identity" not in words


async def test_a_repository_has_a_key_of_its_own(program: Path, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", tmp_path / "key"], check=True)
    key, public = (tmp_path / "key").read_text().strip(), (tmp_path / "key.pub").read_text().split()[1]
    words = await seen(Git(program, tmp_path, lends_ssh_identity=True), key.replace("\n", "\r\n"))
    assert public in words, "ssh can read it, and takes it for private"
    assert "agent=\n" in words
    assert key.splitlines()[1] not in words
