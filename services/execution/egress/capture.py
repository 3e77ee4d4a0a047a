"""Brings every TCP connection of a network namespace to one socket of ours, whatever address it is for.

A route makes every IPv4 address local, so that packets for it are delivered and not sent. One rule of nf_tables hands
those for new connections to a transparent socket, whose accepted ones have the wanted address as their own. It works
without the tracking of connections, whose memory is the whole machine's. Works in namespaces without any interface but
the loopback, for their owner: root is not needed. IPv6 is left without a route.
"""

import socket
import struct
from typing import Final

from services.execution.egress import netlink
from services.execution.egress.netlink import attribute, nested

_LOOPBACK_INDEX: Final = 1  # in every network namespace: its first interface
_LOOPBACK_NET: Final = bytes([127])

# linux/rtnetlink.h
_NEW_ROUTE, _ROUTE_DEVICE, _LOCAL_TABLE = 24, 4, 255
_BY_ADMINISTRATOR, _SCOPE_HOST, _LOCAL = 4, 254, 2
# linux/netfilter/nf_tables.h and nfnetlink.h
_NF_TABLES = 10
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEW_TABLE, _NEW_CHAIN, _NEW_RULE = 0, 3, 6
_REGISTER = (1).to_bytes(4, "big")
_IPV4 = (2).to_bytes(4, "big")
_NOT_EQUAL, _EQUAL = 1, 0
_PRE_ROUTING, _BEFORE_DELIVERY = 0, -150
_NETWORK_HEADER, _DESTINATION_OFFSET = 1, 16
_PROTOCOL_KEY = 16
_NAME = b"boatyard\0"


class CaptureUnavailableError(Exception):
    """The kernel has no nf_tables with what is needed here; the text says what to load."""

    def __init__(self, error: OSError) -> None:
        super().__init__(
            "this kernel cannot bring the connections of a network namespace to our proxy"
            f" ({error.strerror}): it needs nf_tables and nft_tproxy (try `modprobe nft_tproxy`)"
        )


def capture(port: int) -> None:
    """Bring all TCP of this network namespace, but for its loopback network, to the transparent socket at a port.

    Raises CaptureUnavailableError.
    """
    try:
        netlink.call(netlink.NETFILTER, *_rules(port))
        netlink.call(netlink.ROUTE, _route())
    except OSError as error:
        raise CaptureUnavailableError(error) from error


def complaint(port: int) -> str:
    """Return why `capture` does not work in this network namespace; an empty string when it did."""
    try:
        capture(port)
    except CaptureUnavailableError as error:
        return str(error)
    return ""


def _route() -> bytes:
    fields = (socket.AF_INET, 0, 0, 0, _LOCAL_TABLE, _BY_ADMINISTRATOR, _SCOPE_HOST, _LOCAL, 0)
    body = struct.pack("=8BI", *fields) + attribute(_ROUTE_DEVICE, struct.pack("=I", _LOOPBACK_INDEX))
    return netlink.message(_NEW_ROUTE, body, netlink.CREATE)


def _rules(port: int) -> list[bytes]:
    """Return what `nft` would send for: ip daddr != 127.0.0.0/8 meta l4proto tcp tproxy to :PORT.

    The numbers of attributes are those of the enums nft_*_attributes, in the order of their fields.
    """
    hook = nested(4, attribute(1, struct.pack("!I", _PRE_ROUTING)), attribute(2, struct.pack("!i", _BEFORE_DELIVERY)))
    expressions = (
        _expression(
            b"payload",
            attribute(1, _REGISTER),
            attribute(2, struct.pack("!I", _NETWORK_HEADER)),
            attribute(3, struct.pack("!I", _DESTINATION_OFFSET)),
            attribute(4, struct.pack("!I", len(_LOOPBACK_NET))),
        ),
        _comparison(_NOT_EQUAL, _LOOPBACK_NET),
        _expression(b"meta", attribute(1, _REGISTER), attribute(2, struct.pack("!I", _PROTOCOL_KEY))),
        _comparison(_EQUAL, bytes([socket.IPPROTO_TCP])),
        _expression(b"immediate", attribute(1, _REGISTER), nested(2, attribute(1, struct.pack("!H", port)))),
        _expression(b"tproxy", attribute(1, _IPV4), attribute(3, _REGISTER)),
    )
    return [
        _batch(_BATCH_BEGIN),
        _table_message(_NEW_TABLE, attribute(1, _NAME)),
        _table_message(_NEW_CHAIN, attribute(1, _NAME) + attribute(3, _NAME) + hook + attribute(7, b"filter\0")),
        _table_message(_NEW_RULE, attribute(1, _NAME) + attribute(2, _NAME) + nested(4, *expressions)),
        _batch(_BATCH_END),
    ]


def _expression(name: bytes, *fields: bytes) -> bytes:
    return nested(1, attribute(1, name + b"\0"), nested(2, *fields))


def _comparison(operator: int, value: bytes) -> bytes:
    return _expression(
        b"cmp", attribute(1, _REGISTER), attribute(2, struct.pack("!I", operator)), nested(3, attribute(1, value))
    )


def _table_message(kind: int, body: bytes) -> bytes:
    header = struct.pack("!BBH", socket.AF_INET, 0, 0)
    return netlink.message(_NF_TABLES << 8 | kind, header + body, netlink.CREATE)


def _batch(kind: int) -> bytes:
    return netlink.message(kind, struct.pack("!BBH", socket.AF_UNSPEC, 0, _NF_TABLES), acknowledged=False)
