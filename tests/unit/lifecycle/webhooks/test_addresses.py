"""Which URLs may be called, by default and when the operator says so."""

import httpx2
import pytest

from services.lifecycle.webhooks import AllowList, url_complaint
from services.lifecycle.webhooks.addresses import NotAllowed, resolve

LOCAL = AllowList.parse("127.0.0.0/8, 10.1.2.3 ,hooks.internal.,fd00::/8")


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/hook?x=1",
        "https://example.com:8443/",
        "https://93.184.216.34/",
        "https://[2606:4700::1111]/",
    ],
)
def test_public_servers_by_https(url: str) -> None:
    assert url_complaint(url, AllowList()) is None


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "names no host"),
        ("https://:443/", "names no host"),
        ("https://example.com:port/", "not a URL"),
        ("http://example.com/", "must be https"),
        ("http://127.0.0.1/", "must be https"),
        ("https://127.0.0.1/", "not public"),
        ("https://[::1]/", "not public"),
        ("https://[::ffff:127.0.0.1]/", "not public"),
        ("https://[64:ff9b::a9fe:a9fe]/", "not public"),
        ("https://[2002:7f00:1::]/", "not public"),
        ("https://169.254.169.254/latest", "not public"),
        ("https://10.0.0.1/", "not public"),
        ("https://192.168.1.1/", "not public"),
        ("https://100.64.0.1/", "not public"),
        ("https://0.0.0.0/", "not public"),
        ("https://224.0.0.1/", "not public"),
        ("https://[fe80::1]/", "not public"),
        ("https://[fc00::1]/", "not public"),
    ],
)
def test_what_is_refused(url: str, words: str) -> None:
    complaint = url_complaint(url, AllowList())
    assert complaint is not None
    assert words in complaint


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:80/", "http://10.1.2.3/", "http://HOOKS.internal/", "https://[fd00::1]/"]
)
def test_what_the_operator_allows(url: str) -> None:
    assert url_complaint(url, LOCAL) is None


def test_a_neighbour_of_what_is_allowed_is_not() -> None:
    assert url_complaint("https://10.1.2.4/", LOCAL) is not None
    assert url_complaint("http://other.internal/", LOCAL) is not None


@pytest.mark.parametrize("text", ["10.0.0.0/33", "a b", "-x", "host/path"])
def test_an_allow_list_that_makes_no_sense(text: str) -> None:
    with pytest.raises(ValueError, match="neither"):
        AllowList.parse(text)


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f000001"])
async def test_a_name_is_looked_at_when_it_is_resolved(host: str) -> None:
    url = httpx2.URL(f"https://{host}/")
    with pytest.raises(NotAllowed, match="not public"):
        await resolve(url, AllowList())
    assert any(address.is_loopback for address in await resolve(url, AllowList.parse("127.0.0.0/8,::1")))
    assert await resolve(url, AllowList(hosts=frozenset({host})))
