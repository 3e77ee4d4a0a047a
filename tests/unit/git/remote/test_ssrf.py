"""A repository's URL reaches no address that only this machine, or its network, can reach."""

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.addresses import is_public
from services.common.errors import FailedPrecondition
from services.git.gitcmd import GitError
from services.git.remote.addresses import AddressBook
from services.git.remote.file_repository import FileRoots
from services.git.remote.ssrf import IPAddress, SsrfGuard


def answers(*addresses: str):
    async def resolve(host: str, port: int) -> list[IPAddress]:
        return [ip_address(address) for address in addresses]

    return resolve


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


PRIVATE = [
    "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
    "::1", "fe80::1", "fd00::1", "fd00:ec2::254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "::",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
async def test_a_name_that_leads_inside_is_refused(address: str) -> None:
    for among in ((address,), ("93.184.216.34", address)):
        with pytest.raises(FailedPrecondition, match="BOATYARD_GIT_ALLOW_NETWORKS") as failure:
            await SsrfGuard().pin("https", "git.example.com", None, answers(*among))
        assert failure.value.reason == "ADDRESS_NOT_ALLOWED"
    allowed = SsrfGuard((ip_network(address),))
    assert await allowed.pin("ssh", "git.example.com", None, answers(address)) == ""


async def test_git_goes_where_we_looked() -> None:
    pinned = await SsrfGuard().pin("https", "git.example.com", 8443, answers("93.184.216.34", "2606:2800:220:1::1"))
    assert pinned == "git.example.com:8443:93.184.216.34,[2606:2800:220:1::1]"


@pytest.mark.parametrize(
    "url",
    ["https://127.0.0.1/x", "https://127.1/x", "https://2130706433/x", "https://0x7f000001/x", "https://[::1]/x",
     "https://[::ffff:127.0.0.1]/x", "https://localhost/x", "ssh://git@127.0.0.1/x", "git@127.0.0.1:x", "localhost:x"],
)  # fmt: skip
async def test_no_way_of_writing_it_leads_to_this_machine(tmp_path: Path, url: str) -> None:
    book = AddressBook(FileRoots((), (), tmp_path))
    if book.complaint(url) is None:
        with pytest.raises(FailedPrecondition) as failure:
            await book.resolve(url)
        assert failure.value.reason == "ADDRESS_NOT_ALLOWED"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://localhost:3000/x", "BOATYARD_GIT_ALLOW_LOOPBACK_HTTP"),
        ("http://git.example.com/x", "must be https, ssh"),
    ],
)
def test_plain_http_is_refused_and_where_it_could_be_allowed_the_setting_is_named(
    tmp_path: Path, url: str, words: str
) -> None:
    assert words in (AddressBook(FileRoots((), (), tmp_path)).complaint(url) or "")
    assert AddressBook(FileRoots((), (), tmp_path), allow_loopback_http=True).complaint("http://localhost:3/x") is None


async def test_a_name_that_leads_nowhere_is_told() -> None:
    async def fail(host: str, port: int) -> list[IPAddress]:
        raise OSError(1, "no such name")

    with pytest.raises(GitError, match=r"could not resolve host git\.example\.com: no such name"):
        await SsrfGuard().pin("https", "git.example.com", None, fail)


async def test_behind_a_proxy_the_proxy_looks_names_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.com:3128")
    assert await SsrfGuard().pin("https", "git.example.com", None, answers("10.0.0.1")) == ""
    with pytest.raises(FailedPrecondition):
        await SsrfGuard().pin("https", "10.0.0.1", None, answers())


@given(st.ip_addresses(v=4))
def test_what_is_wrapped_is_judged_by_what_is_inside(address) -> None:
    assert is_public(ip_address(f"::ffff:{address}")) == is_public(address)
