"""What the proxy decides and understands, without a network."""

import asyncio
import json
import os
import struct
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network

import pytest

from services.common.addresses import is_public
from services.execution.egress.decisions import Decisions
from services.execution.egress.name_server import answer
from services.execution.egress.names import MadeUpAddresses
from services.execution.egress.neighbours import attached_networks
from services.execution.egress.policy import EgressPolicy, RefusedError, is_local
from services.execution.egress.proxy import parse
from services.sandbox.host_patterns import HostPattern


class RecordedDecisions(Decisions):
    """Decisions, recorded in a list."""

    def __init__(self) -> None:
        self.all: list[tuple[str, int, bool, str]] = []

    def report(self, host: str, port: int, *, allowed: bool, reason: str) -> None:
        self.all.append((host, port, allowed, reason))


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Let names be resolved to these addresses, one list each time; return the names that were asked for."""
    asked: list[str] = []

    async def getaddrinfo(host: str, port: int, **_: object) -> list[tuple]:
        asked.append(host)
        return [(0, 0, 0, "", (address, port)) for address in answers[len(asked) - 1]]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    return asked


async def test_a_name_is_resolved_once_and_only_public_addresses_of_it_are_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decisions = RecordedDecisions()
    asked = resolving(monkeypatch, ["10.0.0.1", "93.184.215.14", "::ffff:127.0.0.1", "2606:4700::1"], ["127.0.0.1"])
    policy = EgressPolicy.of(["*.example.com"], [], decisions)
    assert await policy.addresses("A.example.com.", 443) == [ip_address("93.184.215.14"), ip_address("2606:4700::1")]
    assert asked == ["a.example.com"]
    with pytest.raises(RefusedError, match="not public"):
        await policy.addresses("a.example.com", 443)
    assert [reason for *_, reason in decisions.all] == ["", "ADDRESS_NOT_ALLOWED"]


async def test_what_no_pattern_names_is_not_even_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = resolving(monkeypatch)
    policy = EgressPolicy.of(["example.com"], ["0.0.0.0/0"], RecordedDecisions())
    for host, port, reason in (("example.org", 443, "HOST_NOT_ALLOWED"), ("example.com", 22, "PORT_NOT_ALLOWED")):
        with pytest.raises(RefusedError) as refused:
            await policy.addresses(host, port)
        assert refused.value.reason == reason
    assert asked == []


async def test_the_operator_may_allow_addresses_that_are_not_public(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, ["10.1.2.3", "10.2.2.3"], ["fd00::1"])
    policy = EgressPolicy.of(["git.corp.example"], ["10.1.0.0/16", "fd00::/64"], RecordedDecisions())
    assert await policy.addresses("git.corp.example", 443) == [ip_address("10.1.2.3")]
    assert await policy.addresses("git.corp.example", 443) == [ip_address("fd00::1")]


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "127.1.2.3",
            "0.0.0.0",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
        ),
        *("100.100.100.200", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1"),
        *("fe80::1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1"),
        *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001:db8::1"),
    ],
)
def test_an_address_that_is_not_everybodys_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.215.14", "2606:4700::1", "64:ff9b::101:101"])
def test_other_addresses_are(address: str) -> None:
    assert is_public(ip_address(address))


def test_an_address_of_this_machine_is_known() -> None:
    assert is_local(ip_address("127.0.0.1"))
    assert not is_local(ip_address("192.0.2.1"))


@pytest.mark.parametrize(
    ("head", "host", "port", "first"),
    [
        ("CONNECT a.test:443 HTTP/1.1\r\n\r\n", "a.test", 443, ""),
        ("CONNECT [2001:db8::1]:443 HTTP/1.1\r\n\r\n", "2001:db8::1", 443, ""),
        (
            "GET http://a.test/x?y HTTP/1.1\r\nHost: other\r\nProxy-Authorization: x\r\nAccept: */*\r\n\r\n",
            *("a.test", 80, "GET /x?y HTTP/1.1\r\nHost: a.test\r\nAccept: */*\r\nConnection: close\r\n\r\n"),
        ),
        (
            "POST http://u:p@A.test:8080 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            *("a.test", 8080, "POST / HTTP/1.0\r\nHost: A.test:8080\r\nConnection: close\r\n\r\n"),
        ),
    ],
)
def test_requests_are_read_and_passed_on_to_the_host_they_name(head: str, host: str, port: int, first: str) -> None:
    request = parse(head.encode())
    assert request is not None
    assert (request.host, request.port, request.first.decode()) == (host, port, first)


@pytest.mark.parametrize(
    "line",
    [
        *(
            "GET / HTTP/1.1",
            "GET https://a.test/ HTTP/1.1",
            "CONNECT a.test HTTP/1.1",
            "CONNECT a.test:x HTTP/1.1",
            "x",
        ),
        *("GET http://a.test:99999/ HTTP/1.1", "GET http:// HTTP/1.1", "GET http://a.test/ x HTTP/1.1"),
        "GET http://[ HTTP/1.1",
    ],
)
def test_what_is_no_request_to_a_proxy_is_none(line: str) -> None:
    assert parse(f"{line}\r\n\r\n".encode()) is None


def question(name: str, kind: int = 1) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!6H", 4711, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", kind, 1)


def test_a_name_is_answered_with_an_address_of_its_own_or_not_at_all() -> None:
    decisions, made_up = RecordedDecisions(), MadeUpAddresses()
    policy = EgressPolicy.of(["*.example.com"], [], decisions)
    known = answer(question("A.example.com"), policy, made_up)
    assert known is not None
    assert struct.unpack("!6H", known[:12]) == (4711, 0x8180, 1, 1, 0, 0)
    assert made_up.name_of(IPv4Address(known[-4:])) == "a.example.com"
    assert answer(question("a.example.com"), policy, made_up)[-4:] == known[-4:]
    assert answer(question("b.example.com"), policy, made_up)[-4:] != known[-4:]
    unknown, other_type = (
        answer(one, policy, made_up) for one in (question("example.org"), question("a.example.com", 28))
    )
    assert unknown is not None
    assert unknown[3] & 0xF == 3
    assert other_type is not None
    assert struct.unpack("!6H", other_type[:12])[1:4] == (0x8180, 1, 0)
    names = [one[0] for one in decisions.all]
    assert names == ["A.example.com", "a.example.com", "b.example.com", "example.org", "a.example.com"]


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_broken_question_breaks_nothing(cut: int) -> None:
    reply = answer(question("a.example.com")[:cut], EgressPolicy.of([], [], RecordedDecisions()), MadeUpAddresses())
    assert reply is None or reply[3] & 0xF == 1


def test_a_name_that_is_too_long_is_none() -> None:
    policy = EgressPolicy.of(None, [], RecordedDecisions())
    assert answer(question("a." * 120 + "test"), policy, MadeUpAddresses())[3] & 0xF == 0
    assert answer(question("a." * 130 + "test"), policy, MadeUpAddresses())[3] & 0xF == 1


def test_as_many_names_are_remembered_as_are_to_be_and_those_in_use_longest() -> None:
    made_up = MadeUpAddresses(most=2)
    first, second = made_up.address_of("first.test"), made_up.address_of("second.test")
    assert made_up.name_of(first) == "first.test"
    third = made_up.address_of("third.test")
    assert [made_up.name_of(one) for one in (first, second, third)] == ["first.test", None, "third.test"]
    assert made_up.address_of("second.test") not in {first, second, third}, "none is soon given to another name"
    assert all(one in ip_network("198.18.0.0/15") for one in (first, second, third))


async def test_every_host_is_reached_on_every_port_but_not_what_is_near(monkeypatch: pytest.MonkeyPatch) -> None:
    own = next(one for one in attached_networks() if isinstance(one, IPv4Network))
    resolving(monkeypatch, ["93.184.215.14"], ["192.168.1.1"], [str(own[-1])], ["192.168.1.1"])
    policy = EgressPolicy.of(None, [], RecordedDecisions())
    assert await policy.addresses("example.org", 4711) == [ip_address("93.184.215.14")]
    for name in ("router.example", "neighbour.example"):
        with pytest.raises(RefusedError, match="NETWORK_ALLOWED_ADDRESSES"):
            await policy.addresses(name, 443)
    named = EgressPolicy.of(None, ["192.168.1.0/24"], RecordedDecisions())
    assert await named.addresses("router.example", 443) == [ip_address("192.168.1.1")]


async def test_what_is_in_a_network_of_this_machines_own_is_near_though_its_address_is_public(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolving(monkeypatch, ["93.184.215.14", "93.184.216.1", "::ffff:93.184.215.15"])
    attached = (ip_network("93.184.215.0/24"),)
    policy = EgressPolicy((HostPattern.parse("*"),), (), attached, RecordedDecisions())
    assert await policy.addresses("example.org", 443) == [ip_address("93.184.216.1")]


def test_decisions_are_bounded_and_the_rest_is_counted() -> None:
    reading, writing = os.pipe2(os.O_NONBLOCK)
    now = [0.0]
    decisions = Decisions(writing, lambda: now[0])
    for _ in range(1000):
        decisions.report("a.test", 443, allowed=True, reason="")
    now[0] = 1.0
    decisions.report("b.test", 443, allowed=False, reason="HOST_NOT_ALLOWED")
    lines = [json.loads(line) for line in os.read(reading, 1 << 20).splitlines()]
    os.close(reading)
    os.close(writing)
    assert len(lines) == 201
    assert lines[-1] == {
        "host": "b.test",
        "port": 443,
        "allowed": False,
        "reason": "HOST_NOT_ALLOWED",
        "omitted": 800,
    }
