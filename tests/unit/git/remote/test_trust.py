"""Whom git believes: the machine's certificates, those that a variable names in their place, a CA of the settings."""

from dataclasses import replace
from pathlib import Path

import pytest

from services.common.errors import FailedPrecondition, StartError
from services.git.gitcmd import Command, Git, Invocation
from services.git.model import Remote
from services.git.remote.trust import certificates_file
from tests.kit.certificates import Authority
from tests.kit.githttp import git_server
from tests.kit.gitservice import git_parts
from tests.kit.repos import Repo

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


async def test_a_ca_of_a_remote_is_believed_besides_for_that_one_alone(tmp_path: Path) -> None:
    (tmp_path / "cell.pem").write_text("those of the cell\n")
    (tmp_path / "git").write_text('#!/bin/sh\necho "$GIT_SSL_CAINFO"; cat "$GIT_SSL_CAINFO"\n')
    (tmp_path / "git").chmod(0o700)
    git = Git(tmp_path / "git", tmp_path, certificates=str(tmp_path / "cell.pem"))
    said = (await git.run(Command("version"), Invocation(protocol="https", ca="its own"))).stdout.decode().splitlines()
    assert said[1:] == ["those of the cell", "", "its own"]
    assert said[0].startswith("/proc/")
    said = (await git.run(Command("version"), Invocation(protocol="https"))).stdout.decode().splitlines()
    assert said == [str(tmp_path / "cell.pem"), "those of the cell"]


async def test_a_server_is_believed_by_its_own_ca_and_told_what_it_is_to_be(tmp_path: Path) -> None:
    upstream = Repo.sample(tmp_path / "work").bare_clone(tmp_path / "served" / "repo.git")
    authority = Authority(tmp_path / "ca")
    certificate = authority.issue("127.0.0.1", into="server")
    async with git_parts(tmp_path / "home", allow_networks=("127.0.0.0/8",)) as parts:
        with git_server(tmp_path / "served", "canary", certificate) as server:
            remote = Remote("repo-1", server.url("repo.git"), "canary", push_options=("ci.skip", "title=a b"))
            with pytest.raises(FailedPrecondition) as failure:
                await parts.prepare(remote)
            assert failure.value.reason == "REMOTE_NOT_TRUSTED"
            remote = replace(remote, ca=authority.file.read_text())
            workspace = parts.workspace(await parts.prepare(remote))
            workspace.agent.write({"a": "1"})
            taken = await parts.manager.take_result("repo-1", "exec-1", workspace.take_spec())
            with pytest.raises(FailedPrecondition) as failure:
                await parts.manager.check_push(remote, workspace.base.commit_id, b"work", ())
            assert failure.value.reason == "REMOTE_UNSUPPORTED"
            upstream.git("config", "receive.advertisePushOptions", "true")
            hook = upstream.path / "hooks" / "post-receive"
            hook.parent.mkdir(exist_ok=True)
            hook.write_text('#!/bin/sh\necho "$GIT_PUSH_OPTION_0,$GIT_PUSH_OPTION_1" > told\n')
            hook.chmod(0o755)
            await parts.manager.check_push(remote, workspace.base.commit_id, b"work", ())
            await parts.manager.push(remote, taken.commit_id, b"work", "")
    assert upstream.head("work") == taken.commit_id
    assert (upstream.path / "told").read_text() == "ci.skip,title=a b\n"
