"""One call of a server by gRPC, that may be well, slow, down, or ill-meaning."""

import shutil
import time
from pathlib import Path

import grpc
import pytest
from boatyard.gateway.v1 import hook_pb2, job_pb2
from boatyard.hook.v1 import callback_pb2 as pb
from google.protobuf.json_format import MessageToJson

from services.lifecycle.webhooks import AllowList, Callback, CallFailed, Webhooks, callback
from tests.kit.callbacks import TOKEN, callback_server
from tests.unit.lifecycle.webhooks.test_http import LOCAL, certificate

JOB = job_pb2.Job(job_id="job-1", state=job_pb2.Job.STATE_RUNNING, spec={"prompt": "Mend it.", "branch": "\u00fc"})
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def call(url: str, **fields) -> Callback:
    document = MessageToJson(JOB).encode()
    known = {
        "call_id": "exec-1-pre-hook-1",
        "url": url,
        "token": TOKEN.encode(),
        "hook_id": "hook-1",
        "event": "BEFORE",
    }
    return Callback(**{**known, "stage": "push", "document": document, "timeout": 5.0, **fields})


async def test_a_server_is_told_of_the_job_and_asked() -> None:
    reply = pb.CallHookResponse(
        veto={"reason": " not today \n"}, note="noted", prompt_addition="Mind the gap.", labels={"a": "b"}
    )
    async with callback_server(reply) as server:
        answer = await LOCAL.ask(call(server.url))
    (request,) = server.calls
    assert request == pb.CallHookRequest(
        call_id="exec-1-pre-hook-1", hook_id="hook-1", event=hook_pb2.Hook.EVENT_BEFORE, stage="push", job=JOB
    )
    assert server.tokens == [f"Bearer {TOKEN}"]
    assert answer.said.veto is not None
    assert (answer.said.veto.reason, answer.said.prompt_addition) == ("not today", "Mind the gap.")
    assert (dict(answer.said.labels), answer.note, answer.tries) == ({"a": "b"}, "noted", 1)


async def test_a_server_in_trouble_is_asked_again_by_the_same_id() -> None:
    async with callback_server(UNAVAILABLE, UNAVAILABLE, None, pb.CallHookResponse()) as server:
        answer = await LOCAL.ask(call(server.url, timeout=0.5))
    assert (answer.said.veto, answer.tries) == (None, 4)
    assert {request.call_id for request in server.calls} == {"exec-1-pre-hook-1"}


async def test_it_ends_somewhere() -> None:
    async with callback_server(UNAVAILABLE) as server:
        with pytest.raises(CallFailed, match="answered UNAVAILABLE: not today, at the last of 5 tries") as failed:
            await LOCAL.ask(call(server.url))
    assert (len(server.calls), failed.value.tries) == (5, 5)
    with pytest.raises(CallFailed, match=r"answered UNAVAILABLE: .*at the last of 5 tries"):
        await LOCAL.ask(call(server.url))


async def test_a_server_that_is_slow() -> None:
    async with callback_server(None) as server:
        started = time.monotonic()
        with pytest.raises(CallFailed, match=r"no answer within 0.1 s$"):
            await LOCAL.ask(call(server.url, timeout=0.1), tries=1)
        assert time.monotonic() - started < 5


@pytest.mark.parametrize("status", ["UNAUTHENTICATED", "UNIMPLEMENTED", "INTERNAL", "RESOURCE_EXHAUSTED"])
async def test_another_status_is_an_answer(status: str) -> None:
    async with callback_server(grpc.StatusCode[status]) as server:
        with pytest.raises(CallFailed, match=f"answered {status}: not today$"):
            await LOCAL.ask(call(server.url))
    assert len(server.calls) == 1


async def test_an_endless_answer_is_not_read() -> None:
    async with callback_server(pb.CallHookResponse(note="x" * 70_000)) as server:
        with pytest.raises(CallFailed, match="RESOURCE_EXHAUSTED"):
            await LOCAL.ask(call(server.url))


async def test_loopback_is_refused_unless_it_is_allowed() -> None:
    async with callback_server() as server:
        with pytest.raises(CallFailed, match="WEBHOOK_ALLOW"):
            await Webhooks().ask(call(server.url))
        with pytest.raises(CallFailed, match=r"localhost is .*: not public"):
            await Webhooks().ask(call(f"https://localhost:{server.port}"))
    assert server.calls == []


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl, to make a certificate")
@pytest.mark.parametrize("name", ["localhost", "elsewhere.example"])
async def test_a_certificate_is_checked_by_name_though_an_address_is_connected_to(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate(tmp_path, name)
    pair = [((tmp_path / "key.pem").read_bytes(), (tmp_path / "cert.pem").read_bytes())]
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    webhooks = Webhooks(AllowList.parse("localhost"), first_pause_seconds=0.01)
    callback.authorities.cache_clear()
    try:
        async with callback_server(credentials=grpc.ssl_server_credentials(pair)) as server:
            to_localhost = call(f"https://localhost:{server.port}")
            if name == "localhost":
                assert (await webhooks.ask(to_localhost)).tries == 1
            else:
                with pytest.raises(CallFailed, match="UNAVAILABLE"):
                    await webhooks.ask(to_localhost)
                assert server.calls == []
    finally:
        callback.authorities.cache_clear()
