"""What is no request, or could be two different ones, is refused; what is one arrives as it was sent."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.agent.providers import ModelProvider, ModelWire
from services.execution.door.http import Chunks
from services.execution.door.server import BODY_BYTES
from tests.kit.model_provider import ProviderServer, message, providing
from tests.unit.execution.door.doors import TOKEN, serving


def of(at: ProviderServer) -> ModelProvider:
    return ModelProvider(name="one", wire=ModelWire.MESSAGES, base_url=at.url)


START = f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {TOKEN}\r\n"
MALFORMED = {
    "two lengths": (400, START + "content-length: 2\r\ncontent-length: 2\r\n\r\n{}"),
    "two lengths in one": (400, START + "content-length: 2, 2\r\n\r\n{}"),
    "a length beside chunks": (400, START + "content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    "chunks beside a length": (400, START + "transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n0\r\n\r\n"),
    "another coding": (400, START + "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "a coding twice": (400, START + "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    "chunks in HTTP/1.0": (400, START.replace("1.1", "1.0") + "transfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    "a negative length": (400, START + "content-length: -2\r\n\r\n{}"),
    "a signed length": (400, START + "content-length: +2\r\n\r\n{}"),
    "a folded field": (400, START + "x-a: b\r\n c\r\ncontent-length: 2\r\n\r\n{}"),
    "a bare LF": (400, START + "x-a: b\ncontent-length: 2\r\n\r\n{}"),
    "space before a colon": (400, START + "content-length : 2\r\n\r\n{}"),
    "NUL": (400, START + "x-a: \0\r\ncontent-length: 2\r\n\r\n{}"),
    "an absolute target": (400, START.replace("/v1", "http://elsewhere/v1") + "content-length: 2\r\n\r\n{}"),
    "a tunnel": (400, "CONNECT x:443 HTTP/1.1\r\n\r\n"),
    "HTTP/2": (400, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "no size": (400, START + "transfer-encoding: chunked\r\n\r\nx\r\n\r\n"),
    "a chunk that is too long": (400, START + "transfer-encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n"),
    "a bare LF after a size": (400, START + "transfer-encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n"),
    "a head without an end": (431, START + "x-a: " + "b" * 70_000),
    "a long head": (431, START + "x-a: " + "b" * 70_000 + "\r\n\r\n"),
    "a long body": (413, START + f"content-length: {BODY_BYTES + 1}\r\n\r\n"),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_what_two_readers_could_understand_differently_is_refused(name: str) -> None:
    status, data = MALFORMED[name]
    async with (
        providing(message()) as at,
        serving(of(at)) as door,
    ):
        # What a smuggled request would begin with follows; it must not be read as one.
        answer = await door.talk(data.encode("latin-1") + b"GET /api/hello HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert answer.count(b"HTTP/1.1 4") == answer.count(b"content-length") == 1
    assert b"connection: close" in answer
    assert at.asked == []


async def test_chunks_and_expectations_arrive() -> None:
    fields = "transfer-encoding: chunked\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n"
    body = "2;a=b\r\n{}\r\n1\r\n \r\n0\r\ntrailer: x\r\n\r\n"
    async with (
        providing(message()) as at,
        serving(of(at)) as door,
    ):
        answer = await door.talk((START + fields + body).encode())
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 ")
    assert at.asked[0].body == b"{} "
    assert "expect" not in at.asked[0].headers


async def test_a_client_of_http_1_0_gets_a_body_that_ends_with_its_connection() -> None:
    reply = message()
    reply.length = False
    async with (
        providing(reply) as at,
        serving(of(at)) as door,
    ):
        answer = await door.talk(START.replace("1.1", "1.0").encode() + b"content-length: 2\r\n\r\n{}")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert json.loads(body)["id"] == "msg_2"


@given(st.lists(st.binary(min_size=1, max_size=9)), st.binary(max_size=5), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_chunks_are_the_same_in_whatever_pieces_they_come(parts: list[bytes], after: bytes, random: object) -> None:
    data = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\nt: 1\r\n\r\n" + after
    chunks, body, rest = Chunks(), b"", b""
    while data:
        count = random.randint(1, 7)
        taken, left = chunks.take(data[:count])
        body, rest, data = body + taken, rest + left, data[count:]
    assert chunks.ended
    assert (body, rest) == (b"".join(parts), after)
