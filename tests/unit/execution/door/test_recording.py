"""What passes the door is recorded without secrets, and a recording answers in place of providers."""

import asyncio
import json
import lzma
from pathlib import Path

import pytest

from services.agent import recordings
from services.agent.providers import ModelWire, replayed_providers
from services.agent.recordings import Matching, RecordingError, check, packed, unpacked
from services.execution.door import recording as recording_module
from services.execution.door import replay as replay_module
from services.execution.door.tapes import Tapes
from services.redaction.strand import Redactor
from tests.kit.model_provider import Asked, Reply, message, messages, providing
from tests.unit.execution.door.doors import TOKEN, serving
from tests.unit.execution.door.test_door import ASKED, CHAT_USAGE, CHUNK, KEY, WIRES, of

SECRET = "a-secret-of-the-execution"
KEEPS_OUT = Redactor({"TOKEN": TOKEN.encode(), "KEY": KEY.encode(), "MINE": SECRET.encode()})
HELLO = {**ASKED, "messages": [{"role": "user", "content": "Hello."}]}


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def to(path: Path, **own: object) -> Tapes:
    return Tapes(record_to=path, redactor=KEEPS_OUT, head={"execution_id": "run-1"}, **own)


def replaying(path: Path, matching: Matching = Matching.STRICT, **own: object) -> Tapes:
    return Tapes(replay_from=path, matching=matching, redactor=KEEPS_OUT, **own)


def saying(*texts: str) -> dict:
    return {**ASKED, "messages": [{"role": "user", "content": text} for text in texts]}


@pytest.mark.parametrize("wire", WIRES)
async def test_what_is_recorded_on_any_wire_is_replayed_byte_for_byte(wire: str, tmp_path: Path) -> None:
    kind, suffix, path, _, reply = WIRES[wire]
    asked = {"model": "gpt-6", "stream": True, "messages": [], "input": "Hello.", "contents": []}
    async with providing(reply) as at, serving(of(at, kind, suffix=suffix), tapes=to(tmp_path / "tape")) as door:
        first = await door.ask(path, asked)
        used = await door.usage()
    async with serving(*replayed_providers(), tapes=replaying(tmp_path / "tape")) as door:
        assert await door.ask(path, asked) == first
        again = await door.usage()
    assert first[0] == 200
    assert again["provider"] == "(replay)"
    counted = [name for name in used if name.endswith("_tokens")]
    assert {name: again[name] for name in counted} == {name: used[name] for name in counted}


async def test_a_recording_can_be_read_and_has_no_secret(tmp_path: Path) -> None:
    echo = Reply([f"event: x\ndata: {KEY[:5]}".encode(), f"{KEY[5:]} {SECRET}\n\n".encode()], type="text/event-stream")
    async with providing(echo) as at, serving(of(at), tapes=to(tmp_path / "tape")) as door:
        await door.ask("/v1/messages?beta=true", saying(f"My secret is {SECRET}, my token {TOKEN}."), accept=SECRET)
    head, request, answer, *data, end = lines(tmp_path / "tape")
    assert (head["recording"], head["execution_id"]) == (1, "run-1")
    asked = request["request"]
    assert (asked["method"], asked["path"]) == ("POST", "/v1/messages?beta=true")
    assert asked["json"]["messages"][0]["content"] == "My secret is [redacted:MINE], my token [redacted:TOKEN]."
    assert asked["fields"]["accept"] == "[redacted:MINE]"
    assert not {"x-api-key", "authorization", "host"} & asked["fields"].keys()
    assert (answer["answer"]["status"], answer["answer"]["provider"]) == (200, "one")
    assert "".join(line["data"] for line in data) == "event: x\ndata: [redacted:KEY] [redacted:MINE]\n\n"
    assert (end["n"], end["end"]) == (1, "complete")
    assert not [secret for secret in (KEY, SECRET, TOKEN) if secret in (tmp_path / "tape").read_text()]


async def test_an_answer_that_broke_off_breaks_off_again(tmp_path: Path) -> None:
    reply = messages()
    reply.cut = 3
    async with providing(reply) as at, serving(of(at), tapes=to(tmp_path / "tape")) as door:
        first = await door.ask("/v1/messages", HELLO)
    assert lines(tmp_path / "tape")[-1]["end"] == "broken"
    async with serving(*replayed_providers(), tapes=replaying(tmp_path / "tape")) as door:
        assert await door.ask("/v1/messages", HELLO) == first
        assert (await door.usage())["is_partial"]


async def test_a_refusal_is_replayed_and_nobody_waits_for_it(tmp_path: Path) -> None:
    busy = Reply([b'{"type": "error"}'], status=429, headers={"retry-after": "90"})
    async with providing(busy) as at, serving(of(at), tapes=to(tmp_path / "tape")) as door:
        assert (await door.ask("/v1/messages", HELLO))[0] == 429
    async with serving(*replayed_providers(), tapes=replaying(tmp_path / "tape")) as door:
        sent = json.dumps(HELLO).encode()
        head = f"host: x\r\nx-api-key: {TOKEN}\r\nconnection: close\r\ncontent-length: {len(sent)}\r\n\r\n"
        refused = await door.talk(f"POST /v1/messages HTTP/1.1\r\n{head}".encode() + sent)
        assert (await door.ask("/v1/messages", HELLO))[0] == 429
    assert b" 429 " in refused.partition(b"\r\n")[0]
    assert b"retry-after: 0\r\n" in refused


async def test_what_the_door_itself_refuses_is_recorded(tmp_path: Path) -> None:
    nobody = of(type("Nobody", (), {"url": "http://127.0.0.1:1"})())
    async with serving(nobody, tapes=to(tmp_path / "tape")) as door:
        assert (await door.ask("/v1/messages", HELLO))[0] == 502
    async with serving(*replayed_providers(), tapes=replaying(tmp_path / "tape")) as door:
        status, body = await door.ask("/v1/messages", HELLO)
    assert status == 502
    assert b"does not answer" in body


async def recorded(path: Path, *bodies: dict) -> None:
    replies = [message(message_id=f"msg_{number}") for number in range(len(bodies))]
    async with providing(*replies) as at, serving(of(at), tapes=to(path, workspace="/workspace")) as door:
        for body in bodies:
            assert (await door.ask("/v1/messages", body))[0] == 200


def said(answer: tuple[int, bytes]) -> str:
    return json.loads(answer[1])["id"]


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ("It is 2026-11-30.", "It is 2027-01-31T08:00:01Z."),
        ("It is Tue, Dec 1, 2026, 09:08:07.", "It is Monday, November 30, 2026, 11:20:31."),
        ("Ran 5 tests in 12.5s", "Ran 5 tests in 0.003s"),
        ("commit 1be1a7d9c0ffee4be1a7d9c0ffee4be1a7d9c0f0", "commit 4be1a7d9c0ffee4be1a7d9c0ffee4be1a7d9c0ff"),
        ("in /tmp/tmp.Aa99bb/other", "in /tmp/tmp.kq3Zx1/file"),
        ("session 00000000-9a51-4b7e-8a3e-0f1d2c3b4a59", "session 5b2f6a1c-9a51-4b7e-8a3e-0f1d2c3b4a59"),
        ("call msg_00000000-9a51-4b7e-8a3e-0f1d2c3b4a59_0", "call msg_5b2f6a1c-9a51-4b7e-8a3e-0f1d2c3b4a59_0"),
        ("run_shell_command_1796039511591_0", "run_shell_command_1796039525317_0"),
        ("Chunk ID: 0f3a9c\nWall time: 0.0512 seconds", "Chunk ID: 7be1d2\nWall time: 0.0498 seconds"),
        ("job-01m7z1m760j0y1q69ksnt0nzah", "job-01m7z1m75hx26fpvaq3ysgqaxg"),
        ("/workspace/berths.py", "/srv/work/1/berths.py"),
    ],
)
async def test_what_changes_by_itself_is_no_difference(then: str, now: str, tmp_path: Path) -> None:
    await recorded(tmp_path / "tape", {**saying(then), "metadata": {"user_id": "device_1"}, "tools": [], "system": "1"})
    again = {**saying(now), "metadata": {"user_id": "device_2"}, "tools": [{"name": "new"}], "system": "2"}
    again["messages"][0]["cache_control"] = {"type": "ephemeral"}
    tapes = replaying(tmp_path / "tape", workspace="/srv/work/1")
    async with serving(*replayed_providers(), tapes=tapes) as door:
        assert (await door.ask("/v1/messages", again))[0] == 200


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (saying("One.", "Two?"), "at messages[1].content it has 'Two.' in the recording, and 'Two?' here"),
        (saying(), "at messages[0] it has {'role': 'user', 'content': 'One.'} in the recording, and nothing here"),
        (saying("One.", "Two.", "Three."), "at messages[2] it has nothing in the recording, and {'role'"),
        ({**saying("One.", "Two."), "model": "claude-opus-5"}, "at model it has 'claude-sonnet-5-5' in the recording"),
        (
            saying("One.", "x" * 5000 + "Two."),
            "at messages[1].content it has 'Two.' in the recording, and '" + "x" * 80 + "'… here",
        ),
    ],
)
async def test_a_mismatch_says_where(body: dict, told: str, tmp_path: Path) -> None:
    await recorded(tmp_path / "tape", saying("One."), saying("One.", "Two."))
    async with serving(*replayed_providers(), tapes=replaying(tmp_path / "tape")) as door:
        assert (await door.ask("/v1/messages", saying("One.")))[0] == 200
        status, answer = await door.ask("/v1/messages", body)
        notes = [report["note"] for report in door.reports() if "note" in report]
    assert status == 400, "which clients do not ask again after"
    text = json.loads(answer)["error"]["message"]
    assert "POST /v1/messages is not what was recorded as request 2" in text
    assert told in text
    assert told in notes[0]


async def test_equal_requests_are_answered_in_their_order(tmp_path: Path) -> None:
    await recorded(tmp_path / "tape", HELLO, saying("Other."), HELLO)
    async with serving(*replayed_providers(), tapes=replaying(tmp_path / "tape")) as door:
        got = [said(await door.ask("/v1/messages", body)) for body in (saying("Other."), HELLO, HELLO, HELLO)]
    assert got == ["msg_1", "msg_0", "msg_2", "msg_2"]


async def test_by_order_content_does_not_matter_and_a_door_made_again_goes_on(tmp_path: Path) -> None:
    await recorded(tmp_path / "tape", HELLO, saying("Other."), HELLO)
    tapes = replaying(tmp_path / "tape", Matching.ORDER)
    got = []
    for _ in range(3):
        async with serving(*replayed_providers(), tapes=tapes) as door:
            got.append(said(await door.ask("/v1/messages", saying("Anything."))))
    assert got == ["msg_0", "msg_1", "msg_2"]
    async with serving(*replayed_providers(), tapes=tapes) as door:
        status, answer = await door.ask("/v1/messages", HELLO)
        other = await door.ask("/v1/responses", {"model": "x", "input": ""})
    assert (status, other[0]) == (400, 400)
    assert b"the recording has 3 of POST /v1/messages, which have all been answered" in answer
    assert b"the recording has no POST /v1/responses" in other[1]


async def test_a_recording_goes_on_after_a_door_that_was_killed_in_mid_line(tmp_path: Path) -> None:
    await recorded(tmp_path / "tape", HELLO)
    with (tmp_path / "tape").open("a") as tape:
        tape.write('{"n": 2, "at": 1, "requ')
    await recorded(tmp_path / "tape", saying("Other."))
    assert [line.get("n") for line in lines(tmp_path / "tape") if "request" in line] == [1, 2]


async def test_a_recording_has_an_end_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording_module, "MOST_BYTES", 20_000)
    async with providing(message()) as at, serving(of(at), tapes=to(tmp_path / "tape")) as door:
        for number in range(3):
            assert (await door.ask("/v1/messages", saying(str(number), "x" * 8000)))[0] == 200
        notes = [report["note"] for report in door.reports() if "note" in report]
    assert len([note for note in notes if "recorded no further" in note]) == 1
    assert (tmp_path / "tape").stat().st_size <= 20_000
    assert lines(tmp_path / "tape")[-1] == {"stopped": "full"}
    async with serving(*replayed_providers(), tapes=replaying(tmp_path / "tape", Matching.ORDER)) as door:
        answers = [await door.ask("/v1/messages", HELLO) for _ in range(4)]
    assert b"was not complete (full)" in answers[-1][1]


async def test_nothing_is_recorded_that_the_disk_needs(tmp_path: Path) -> None:
    async with providing(message()) as at, serving(of(at), tapes=to(tmp_path / "tape", floor_bytes=1 << 60)) as door:
        assert (await door.ask("/v1/messages", HELLO))[0] == 200
        notes = [report["note"] for report in door.reports() if "note" in report]
    assert "the disk has no room" in notes[0]


async def test_many_at_once_are_recorded_each_by_itself(tmp_path: Path) -> None:
    def answering(asked: Asked) -> Reply:
        return message(message_id=asked.json["messages"][0]["content"])

    async with providing(answering) as at, serving(of(at), tapes=to(tmp_path / "tape")) as door:
        await asyncio.gather(*(door.ask("/v1/messages", saying(f"m{number}")) for number in range(20)))
    async with serving(*replayed_providers(), tapes=replaying(tmp_path / "tape")) as door:
        bodies = [saying(f"m{number}") for number in reversed(range(20))]
        got = await asyncio.gather(*(door.ask("/v1/messages", body) for body in bodies))
    assert [said(answer) for answer in got] == [f"m{number}" for number in reversed(range(20))]


async def test_usage_that_no_agent_asked_for_is_replayed_too(tmp_path: Path) -> None:
    usage = {**CHUNK, "choices": [], "usage": CHAT_USAGE}
    pieces = [f"data: {json.dumps(each)}\n\n".encode() for each in ({**CHUNK, "choices": [{}]}, usage)]
    reply = Reply([*pieces, b"data: [DONE]\n\n"], type="text/event-stream")
    body = {"model": "gpt-6", "stream": True, "messages": []}
    async with providing(reply) as at, serving(of(at, ModelWire.CHAT), tapes=to(tmp_path / "tape")) as door:
        first = await door.ask("/v1/chat/completions", body)
        used = await door.usage()
    async with serving(*replayed_providers(), tapes=replaying(tmp_path / "tape")) as door:
        assert await door.ask("/v1/chat/completions", body) == first
        assert (await door.usage())["output_tokens"] == used["output_tokens"] > 0


HEAD = b'{"recording": 1, "began": 0}\n'
ASK = b'{"n": 1, "at": 0, "request": {"method": "POST", "path": "/v1/messages", "json": {}}}\n'


@pytest.mark.parametrize(
    "rest",
    [
        b"no JSON\n",
        b"[1]\n",
        b'{"n": 7, "at": 0, "data": ""}\n',
        b'{"n": 1, "request": 1}\n',
        ASK.replace(b'"n": 1', b'"n": 1e999'),
        ASK + b'{"n": 1, "answer": {"status": 1e999}}\n',
        ASK * 101,
        ASK + b'{"n": 1, "data": [%b]}\n' % (b"{}," * (1 << 20) + b"{}"),
        ASK + b'{"n": 1, "answer": {"status": "x"}}\n',
        ASK + b'{"n": 1, "answer": {"status": 200, "fields": []}}\n',
        ASK + b'{"n": 1, "answer": {"status": 200, "fields": {"a\\r\\nb": "c"}}}\n',
        ASK + b'{"n": 1, "data": "without a head"}\n',
        b"[" * 100_000,
    ],
)
async def test_a_malformed_recording_answers_nothing_and_harms_nobody(
    rest: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "_MOST_REQUESTS", 100)
    (tmp_path / "tape").write_bytes(HEAD + rest)
    async with serving(*replayed_providers(), tapes=replaying(tmp_path / "tape", Matching.ORDER)) as door:
        answers = [await door.ask("/v1/messages", HELLO) for _ in range(2)]
    assert all(status in (400, 502) for status, _ in answers)


def test_a_recording_is_packed_and_unpacked() -> None:
    data = HEAD + ASK * 1000
    small = packed(data)
    assert len(small) < len(data) / 50
    assert b"".join(unpacked(small)) == b"".join(unpacked(data)) == data
    assert packed(small) == small
    with pytest.raises(RecordingError, match="is cut off"):
        list(unpacked(small[:-20]))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "is no recording"),
        (b'{"recording": 2}\n', "version 2, and this program knows none above 1"),
        (b'{"recording": true}', "is no recording"),
        (b"\xfd7zXZ\x00 and more", "cannot be read"),
        (b"[" * 60_000, "is no recording"),
    ],
)
def test_what_is_no_recording_is_refused(data: bytes, told: str) -> None:
    with pytest.raises(RecordingError, match=told):
        packed(data)


def test_a_recording_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings, "MOST_BYTES", 1 << 20)
    bomb = lzma.compress(HEAD + bytes(8 << 20), preset=0)
    check(bomb)
    with pytest.raises(RecordingError, match="1 MiB"):
        list(unpacked(bomb))
