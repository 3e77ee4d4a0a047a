"""One call of a server, that may be well, slow, down, or ill-meaning."""

import asyncio
import shutil
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from services.lifecycle.webhooks import (
    AllowList,
    CallFailed,
    WebhookRequest,
    Webhooks,
    new_secret,
    secret_complaint,
    signing_key,
)
from services.lifecycle.webhooks.signing import signed_headers
from tests.kit.receiver import SECRET, Receiver, Reply, receiver

LOCAL = Webhooks(AllowList.parse("127.0.0.1"), first_pause_seconds=0.01)


def call(url: str, **fields) -> WebhookRequest:
    return WebhookRequest(
        **{"message_id": "m-1", "url": url, "key": signing_key(SECRET), "body": b"{}", "timeout": 5.0, **fields}
    )


def test_the_specification_s_own_example() -> None:
    key = signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signed_headers(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_secrets() -> None:
    assert secret_complaint(SECRET) is None
    assert secret_complaint(new_secret()) is None
    assert new_secret() != new_secret()
    for wrong in (
        "",
        "whsec_",
        "whsec_?",
        SECRET.removeprefix("whsec_"),
        "whsec_" + "A" * 28,
        "whsec_" + "A" * 96,
        "whsec_ü",
    ):
        assert secret_complaint(wrong), wrong


async def test_a_server_is_told_once_and_can_check_who_tells_it() -> None:
    async with receiver(Reply(200, b"thanks")) as server:
        answer = await LOCAL.call(call(server.url, body=b'{"a": "\xc3\xbc"}'))
    (received,) = server.received
    received.check()
    assert (received.path, received.message_id, received.body) == ("/hooks?a=b", "m-1", b'{"a": "\xc3\xbc"}')
    assert received.headers["host"] == f"127.0.0.1:{server.port}"
    assert received.headers["content-type"] == "application/json"
    assert (answer.status, answer.body, answer.is_whole, answer.tries) == (200, b"thanks", True, 1)


async def test_a_server_in_trouble_is_told_again_by_the_same_id() -> None:
    async with receiver(Reply(500), Reply(429), Reply(503, headers={"retry-after": "0"}), Reply(202)) as server:
        answer = await LOCAL.call(call(server.url))
    assert (answer.status, answer.tries) == (202, 4)
    assert [received.message_id for received in server.received] == ["m-1"] * 4
    for received in server.received:
        received.check()


async def test_it_ends_somewhere() -> None:
    async with receiver(Reply(502)) as server:
        with pytest.raises(CallFailed, match="answered 502, at the last of 5 tries"):
            await LOCAL.call(call(server.url))
    assert len(server.received) == 5


async def test_as_long_as_a_server_asks_for() -> None:
    async with receiver(Reply(429, headers={"retry-after": "1"}), Reply()) as server:
        started = time.monotonic()
        await LOCAL.call(call(server.url))
        assert time.monotonic() - started >= 1


async def test_a_server_that_is_down() -> None:
    async with receiver() as server:
        pass
    with pytest.raises(CallFailed, match="no connection"):
        await LOCAL.call(call(server.url))


async def test_a_server_that_is_slow() -> None:
    async with receiver(Reply(is_silent=True)) as server:
        started = time.monotonic()
        with pytest.raises(CallFailed, match=r"no answer within 0.1 s, at the last of 5 tries"):
            await LOCAL.call(call(server.url, timeout=0.1))
        assert time.monotonic() - started < 5
    assert len(server.received) == 5


async def test_a_server_that_answers_for_ever_is_not_listened_to_for_ever() -> None:
    async with receiver(Reply(200, b"x" * 100, {"content-length": "1000000"})) as server:
        with pytest.raises(CallFailed, match=r"no connection|no answer"):
            await LOCAL.call(call(server.url, timeout=0.2))
    async with receiver(Reply(200, b"x" * 1_000_000)) as server:
        answer = await LOCAL.call(call(server.url))
    assert (len(answer.body), answer.is_whole) == (64 << 10, False)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    async with receiver() as elsewhere, receiver(Reply(status, headers={"location": elsewhere.url})) as server:
        with pytest.raises(CallFailed, match=f"answered {status}: redirects are not followed"):
            await LOCAL.call(call(server.url))
    assert (len(server.received), elsewhere.received) == (1, [])


@pytest.mark.parametrize("status", [400, 401, 404, 410])
async def test_a_refusal_is_an_answer(status: int) -> None:
    async with receiver(Reply(status)) as server:
        with pytest.raises(CallFailed, match=f"answered {status}$"):
            await LOCAL.call(call(server.url))
    assert len(server.received) == 1


async def test_loopback_is_refused_unless_it_is_allowed() -> None:
    async with receiver() as server:
        with pytest.raises(CallFailed, match="WEBHOOK_ALLOW"):
            await Webhooks().call(call(server.url))
        with pytest.raises(CallFailed, match=r"localhost is .*: not public"):
            await Webhooks().call(call(f"https://localhost:{server.port}/"))
    assert server.received == []


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiver() as server, Receiver([Reply()]).serving() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        await LOCAL.call(call(server.url))
    assert (len(server.received), proxy.received) == (1, [])


def certificate(directory: Path, name: str) -> ssl.SSLContext:
    """Make a certificate for a name, and whoever signed it into `directory`/cert.pem."""
    subject = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    files = ["-keyout", directory / "key.pem", "-out", directory / "cert.pem"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run([*command, *subject, *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    return context


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl, to make a certificate")
@pytest.mark.parametrize("name", ["localhost", "elsewhere.example"])
async def test_a_certificate_is_checked_by_name_though_an_address_is_connected_to(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = certificate(tmp_path, name)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    webhooks = Webhooks(AllowList.parse("localhost"), first_pause_seconds=0.01)
    async with Receiver([Reply()]).serving(tls) as server:
        to_localhost = call(f"https://localhost:{server.port}/")
        if name == "localhost":
            assert (await webhooks.call(to_localhost)).status == 204
            server.received[0].check()
        else:
            with pytest.raises(CallFailed, match=r"Hostname mismatch|at the last of 5 tries"):
                await webhooks.call(to_localhost)
            assert server.received == []


async def test_a_call_can_be_given_up() -> None:
    async with receiver(Reply(is_silent=True)) as server:
        task = asyncio.create_task(LOCAL.call(call(server.url, timeout=60.0)))
        await server.until(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
