"""A server of Git LFS that is reached over ssh says where its objects are; what it says wrong leaves pointers."""

import json
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from services.common.ids import new_id
from services.git.model import Remote, StartPoint
from services.git.remote.lfs_batch import read_login
from tests.kit import sshd
from tests.kit.githttp import GitServer, git_server
from tests.kit.gitservice import GitParts, git_parts
from tests.kit.lfs import LfsServer, pointer_to
from tests.kit.lfs_files import RULES
from tests.kit.repos import Repo
from tests.kit.served_lfs import read
from tests.kit.sshd import SshServer, ssh_server

NO_SSHD = sshd.PROGRAM is None or os.geteuid() != 0
needs_sshd = pytest.mark.skipif(
    NO_SSHD, reason="nothing over real ssh is tested without sshd (openssh-server), as root"
)

CONTENT = os.urandom(3000)


@dataclass
class Served:
    """A repository over ssh, and its server of Git LFS over http. `says` is what is answered about that one."""

    ssh: SshServer
    http: GitServer
    lfs: LfsServer
    parts: GitParts
    bare: Repo

    @property
    def remote(self) -> Remote:
        return Remote("repo-1", self.ssh.url(self.bare.path), self.ssh.key)

    def says(self, script: str) -> None:
        program = self.ssh.programs / "git-lfs-authenticate"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def leads(self, **answer: object) -> None:
        text = json.dumps({"href": self.http.url("app.git/info/lfs"), "expires_in": 600, **answer})
        self.says(f"cat <<'END'\n{text}\nEND")

    @property
    def login(self) -> dict[str, str]:
        return {"Authorization": f"Basic {self.http.secrets[1].decode()}"}


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with ssh_server(tmp_path_factory.mktemp("sshd")) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{server.programs}:{os.environ['PATH']}")
        yield server


@pytest.fixture
async def served(ssh: SshServer, tmp_path: Path) -> AsyncIterator[Served]:
    lfs = LfsServer()
    work = Repo.init(tmp_path / "work")
    work.commit("files", {".gitattributes": RULES, "a.bin": lfs.add(CONTENT).text.decode()})
    bare = work.bare_clone(tmp_path / "served" / "app.git")
    settings = {"allow_networks": ("127.0.0.0/8",), "allow_loopback_http": True}
    with git_server(tmp_path / "served", "the-token") as http:
        http.lfs, http.records_processes = lfs, False
        async with git_parts(tmp_path / "home", **settings) as parts:
            ssh.asked()
            yield Served(ssh, http, lfs, parts, bare)


@pytest.mark.slow
@needs_sshd
async def test_contents_come_from_where_the_server_leads_and_go_there_before_the_branch(served: Served) -> None:
    served.leads(header=served.login)
    base = await served.parts.prepare(served.remote, StartPoint(git_lfs=True))
    assert (base.caveats, read(base, "a.bin")) == ((), CONTENT)
    workspace = await served.parts.layered(base, mounted=False)
    await workspace.agent("echo new > new.bin")
    spec = replace(workspace.take_spec(), git_lfs=True)
    result = await served.parts.manager.take_result("repo-1", new_id("result"), spec)
    await served.parts.manager.push(served.remote, result.commit_id, b"work", "")
    assert served.lfs.objects[pointer_to(b"new\n").oid] == b"new\n"
    assert served.bare.git("show", "work:new.bin") + "\n" == pointer_to(b"new\n").text.decode()
    asked = [command for command in served.ssh.asked() if "lfs" in command]
    assert asked == [f"git-lfs-authenticate {served.bare.path} {operation}" for operation in ("download", "upload")]
    assert served.ssh.key not in str(served.http.requests)


NO_LOGINS = (b"", b"Welcome", b"[]", b"7", b'{"href": 7}', b'{"href": ["x"]}', b"\xff", b"[" * 100_000)


@pytest.mark.parametrize("body", NO_LOGINS, ids=range(len(NO_LOGINS)))
def test_what_is_no_answer_is_none(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_login(body, "https://host/app.git/info/lfs")


def test_a_server_that_names_no_address_has_its_own() -> None:
    login = read_login(
        b'{"header": {"X-A": "b", "Host": "c", "Y": 7}, "expires_in": 9}', "https://host/app.git/info/lfs"
    )
    assert (login.url, login.headers) == ("https://host/app.git/info/lfs", {"X-A": "b"})


WRONG = {
    "no such program": ("echo 'not found' >&2; exit 127", "no Git LFS over ssh: not found"),
    "a greeting": ("echo Welcome", "does not answer as one of Git LFS over ssh"),
    "this machine's network": ('echo \'{"href": "http://192.168.7.7/x"}\'', "192.168.7.7"),
}


@pytest.mark.slow
@needs_sshd
async def test_what_a_server_says_wrong_leaves_pointers_and_says_why(served: Served) -> None:
    for name, (script, says) in WRONG.items():
        served.says(script)
        (caveat,) = (await served.parts.prepare(served.remote, StartPoint(git_lfs=True))).caveats
        assert (caveat.paths, says in caveat.detail) == ((b"a.bin",), True), (name, caveat.detail)
    served.leads()
    (caveat,) = (await served.parts.prepare(served.remote, StartPoint(git_lfs=True))).caveats
    assert "returned error: 401" in caveat.detail, "the key of ssh logs in nowhere else"
    assert set(served.lfs.logins_at_contents) <= {None}
