"""Which addresses are public: one list, for the egress of agents, for webhooks, and for git's remotes."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.addresses import is_public
from services.execution.egress.decisions import Decisions
from services.execution.egress.policy import EgressPolicy
from services.git.remote.ssrf import SsrfGuard
from services.lifecycle.webhooks import AllowList

SPECIAL = [
    *("0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "169.254.169.254", "172.16.0.1"),
    *("192.0.0.9", "192.0.0.192", "192.0.2.1", "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.0.1"),
    *("192.175.48.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
    "168.63.129.16",
    *("::", "::1", "::1.1.1.1", "::ffff:0:1.1.1.1", "100::1", "100:0:0:1::1", "64:ff9b:1::1", "2001::1", "2001:1::1"),
    *("2001:2::1", "2001:4:112::1", "2001:20::1", "2001:db8::1", "2002:101:101::1", "2620:4f:8000::1", "3fff::1"),
    *("4000::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff0e::1"),
    *("::ffff:168.63.129.16", "64:ff9b::a83f:8110", "::ffff:192.0.0.192", "64:ff9b::7f00:1", "2002:7f00:1::"),
]
PUBLIC = ["1.1.1.1", "93.184.216.34", "168.63.129.17", "192.0.1.1", "2606:4700::1111", "2001:4860::8888",
          "::ffff:1.1.1.1", "64:ff9b::101:101"]  # fmt: skip


def answers(address: str) -> set[bool]:
    """Return what each of the three who ask says of an address."""
    one = ip_address(address)
    policy = EgressPolicy.of([], [], Decisions(-1))
    return {
        is_public(one),
        policy._admits(one),
        SsrfGuard().admits(one),
        AllowList().admits("host.example", one),
    }


@pytest.mark.parametrize("address", SPECIAL)
def test_special_addresses_are_not_reached_by_anyone(address: str) -> None:
    assert answers(address) == {False}


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are(address: str) -> None:
    assert answers(address) == {True}


@given(st.ip_addresses())
def test_nothing_is_public_that_the_standard_library_knows_to_be_private(address: object) -> None:
    one = ip_address(str(address))
    nat64 = ip_network("64:ff9b::/96")
    assert not (is_public(one) and one.is_private) or one in nat64 or getattr(one, "ipv4_mapped", None)
