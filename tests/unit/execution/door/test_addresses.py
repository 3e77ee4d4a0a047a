"""Where a door connects to: to addresses that were judged, of names that may lead anywhere and change their mind."""

import json
import socket
import ssl
from ipaddress import ip_address
from pathlib import Path

import pytest

from services.agent.providers import ModelProvider, ModelWire
from tests.kit.certificates import Authority
from tests.kit.model_provider import ProviderServer, Reply, message, providing
from tests.unit.execution.door.doors import serving

ASKED = {"model": "m"}
NAME = "models.example"
Monkey = pytest.MonkeyPatch


def named(at: ProviderServer, *allowed: str, host: str = NAME, scheme: str = "http", **fields: str) -> ModelProvider:
    url = f"{scheme}://{host}:{at.port}"
    fields = {"name": "one", **fields}
    return ModelProvider(wire=ModelWire.MESSAGES, base_url=url, keys=("k",), allowed_addresses=allowed, **fields)


def resolving(monkeypatch: Monkey, *answers: list[str]) -> list[str]:
    """Let each look-up of a name have the next of these answers; return the names that are looked up."""
    left, asked = list(answers), []

    def resolve(host: str, port: int, *_: object, **__: object) -> list[tuple]:
        asked.append(host)
        found = left.pop(0) if len(left) > 1 else left[0]
        ends = [(socket.AF_INET6 if ":" in one else socket.AF_INET, (one, port)) for one in found]
        return [(family, socket.SOCK_STREAM, 6, "", end) for family, end in ends]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return asked


@pytest.mark.parametrize(
    "addresses",
    [
        *(["127.0.0.1"], ["::1"], ["0.0.0.0"], ["10.1.2.3"], ["192.168.0.1", "172.16.0.1"]),
        *(["169.254.169.254"], ["fd00:ec2::254"], ["100.100.100.200"], ["168.63.129.16"], ["fe80::1%eth0"]),
        *(["::ffff:127.0.0.1"], ["64:ff9b::a00:1"], ["2002:7f00:1::"]),
    ],
)
async def test_a_name_that_leads_to_no_public_address_is_not_asked(monkeypatch: Monkey, addresses: list[str]) -> None:
    async with providing(message()) as at, serving(named(at)) as door:
        resolving(monkeypatch, addresses)
        status, answer = await door.ask("/v1/messages", ASKED)
        (note,) = (report["note"] for report in door.reports())
    assert (status, at.connections) == (403, 0)
    assert json.loads(answer)["error"] == {"type": "permission_error", "message": f"Boatyard: {note}"}
    assert note.startswith(f"model provider one is not asked: {NAME} is {ip_address(addresses[0].partition('%')[0])}")
    assert "BOATYARD_PROVIDER_ALLOW" in note


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1"])
async def test_this_machine_is_not_asked_under_any_name(host: str) -> None:
    async with providing(message()) as at, serving(named(at, "10.0.0.0/8", host=host)) as door:
        assert (await door.ask("/v1/messages", ASKED))[0] == 403
    assert at.connections == 0


@pytest.mark.parametrize("allowed", ["127.0.0.1/32", "127.0.0.0/8", "0.0.0.0/0"])
@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["10.1.2.3", "127.0.0.1"], ["127.0.0.9", "127.0.0.1"]])
async def test_what_the_operator_allows_is_asked(monkeypatch: Monkey, allowed: str, addresses: list[str]) -> None:
    """Of several addresses the next is tried, if it is allowed."""
    if allowed == "0.0.0.0/0":
        addresses = [one for one in addresses if one.startswith("127.")]
    async with providing(message()) as at, serving(named(at, allowed)) as door:
        resolving(monkeypatch, addresses)
        assert (await door.ask("/v1/messages", ASKED))[0] == 200
        assert "note" not in str(door.reports())
    assert at.asked[0].headers["host"] == f"{NAME}:{at.port}"


async def test_a_name_is_looked_up_once_per_connection_and_judged_each_time(monkeypatch: Monkey) -> None:
    """A name server that answers differently the second time gains nothing."""
    async with providing(message()) as at, serving(named(at, "127.0.0.1/32")) as door:
        at.closes = True
        asked = resolving(monkeypatch, ["127.0.0.1"], ["127.0.0.2"])
        assert (await door.ask("/v1/messages", ASKED))[0] == 200
        assert asked == [NAME]
        assert (await door.ask("/v1/messages", ASKED))[0] == 403
        assert (asked, at.connections) == ([NAME, NAME], 1)


async def test_https_proves_the_name_and_not_the_address(monkeypatch: Monkey, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = authority.issue(NAME, into="one")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(files.certificate, files.key)
    async with providing(message(), tls=tls) as at:
        resolving(monkeypatch, ["127.0.0.1"])
        for host, expected in ((NAME, 200), ("other.example", 502)):
            provider = named(at, "127.0.0.1/32", host=host, scheme="https", ca=authority.file.read_text())
            async with serving(provider) as door:
                assert (await door.ask("/v1/messages", ASKED))[0] == expected


async def test_the_next_provider_is_asked_instead(monkeypatch: Monkey) -> None:
    async with (
        providing(message()) as at,
        providing(message()) as other,
        serving(named(at), named(other, "127.0.0.1/32", name="two")) as door,
    ):
        resolving(monkeypatch, ["127.0.0.1"])
        assert (await door.ask("/v1/messages", ASKED))[0] == 200
        (note,) = (report["note"] for report in door.reports() if "note" in report)
    assert note.endswith("BOATYARD_PROVIDER_ALLOW; two is asked instead")
    assert (at.connections, len(other.asked)) == (0, 1)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_the_agents_to_hear(status: int) -> None:
    async with providing(message()) as elsewhere:
        moved = Reply(status=status, headers={"location": f"{elsewhere.url}/v1/messages"}, length=True)
        async with providing(moved) as at, serving(named(at, "127.0.0.1/32", host="127.0.0.1")) as door:
            assert (await door.ask("/v1/messages", ASKED))[0] == status
    assert (len(at.asked), elsewhere.connections) == (1, 0)
