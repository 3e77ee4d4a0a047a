"""Whose failures are counted together, how many are allowed, and what is told of the others."""

import grpc
import pytest
from structlog.testing import capture_logs

from services.common.errors import Exhausted
from services.common.rpc import auth_failures
from services.common.rpc.auth_failures import MAX_FAILURES, FailureLimiter, TooManyFailuresError
from services.common.rpc.channel import open_channel
from services.common.rpc.peers import address_of
from services.common.rpc.status import service_error
from tests.kit.servers import TOKEN, serving
from tests.unit.common.rpc.echo import Echo, EchoStub


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:127.0.0.1:40312", "127.0.0.1"),
        ("ipv6:%5B::1%5D:40312", "::/64"),
        ("ipv6:[2001:db8:1:2:3::4]:5", "2001:db8:1:2::/64"),
        ("ipv6:[fe80::1%25eth0]:5", "fe80::/64"),
        ("ipv6:%5B::ffff:192.0.2.7%5D:5", "192.0.2.7"),
        ("unix:/run/a.sock", "unix"),
        ("unix:", "unix"),
        ("", ""),
        ("ipv4:what", ""),
    ],
)
def test_whose_failures_are_counted_together(peer: str, address: str) -> None:
    assert address_of(peer) == address


def flooded(failures: FailureLimiter, peer: str = "ipv4:192.0.2.1:1", count: int = MAX_FAILURES) -> None:
    for _ in range(count):
        failures.note(peer)


def test_an_address_that_fails_too_often_waits_and_is_never_shut_out_for_good() -> None:
    now = 50.0
    failures = FailureLimiter(lambda: now)
    flooded(failures)
    for _ in range(1000):  # what is refused makes it no worse
        with pytest.raises(TooManyFailuresError) as refused:
            failures.check("ipv4:192.0.2.1:2")
        assert refused.value.retry_after == pytest.approx(1)
    failures.check("ipv4:192.0.2.2:2")
    now += 1
    failures.note("ipv4:192.0.2.1:3")
    with pytest.raises(TooManyFailuresError):
        failures.note("ipv4:192.0.2.1:3")
    now += 3600
    flooded(failures)


def test_of_a_flood_little_is_told() -> None:
    now = 0.0
    failures = FailureLimiter(lambda: now)
    flooded(failures)
    told = []
    with capture_logs() as logs:
        for second in range(600):
            now += 0.2
            for _ in range(2):
                try:
                    failures.note("ipv4:192.0.2.1:1")
                except TooManyFailuresError as error:
                    told += [second] if not error.is_told else []
    assert len(told) == len(logs) == 2, "two minutes of it"
    assert logs[1]["address"] == "192.0.2.1"
    assert logs[1]["refused"] > 100


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth_failures, "_MAX_ADDRESSES", 2)
    failures = FailureLimiter(lambda: 0.0)
    for host in (1, 2, 3):
        flooded(failures, f"ipv4:192.0.2.{host}:1")
    failures.check("ipv4:192.0.2.1:1")  # forgotten
    for host in (2, 3):
        with pytest.raises(TooManyFailuresError):
            failures.check(f"ipv4:192.0.2.{host}:1")


async def test_a_node_service_refuses_a_flood_and_goes_on_serving_its_cell() -> None:
    async with serving(Echo().registration()) as server:
        async with open_channel(server.address, "wrong") as channel:
            statuses = set()
            for _ in range(3 * MAX_FAILURES):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await EchoStub(channel).unary(b"x")
                statuses.add(refused.value.code())
                if refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                    break
        assert statuses == {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED}
        described = service_error(refused.value)
        assert isinstance(described, Exhausted)
        assert described.reason == "TOO_MANY_FAILURES"
        assert described.retry_after
        async with open_channel(server.address, TOKEN) as channel:
            assert await EchoStub(channel).unary(b"x") == b"x"
