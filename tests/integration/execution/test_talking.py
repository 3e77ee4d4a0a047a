"""Messages and permissions: each is delivered, asked and answered once, whichever process is killed meanwhile."""

import os
import signal
from pathlib import Path

import pytest
from boatyard.execution.v1 import execution_pb2 as pb

from services.common.errors import AlreadyExists, FailedPrecondition, Invalid, NotFound
from services.common.ids import new_id
from services.execution.rundir.directory import RunDirectory
from tests.integration.execution.model import ModelClient, of, playing, results
from tests.integration.execution.service import Client, State
from tests.integration.execution.test_contract import refused

RUN = new_id("run")
CALL = {"tools": [{"name": "bash", "input": {"command": "echo done >> file; cat file"}}]}
GATE = {"tools": [{"name": "bash", "input": {"command": "until test -e gate; do sleep 0.01; done"}}]}


def say(text: str, message_id: str = "m1", execution_id: str = RUN) -> pb.SendMessageRequest:
    return pb.SendMessageRequest(execution_id=execution_id, message_id=message_id, text=text)


def resolve(allow: bool, permission_id: str = "p1", **fields: str) -> pb.ResolvePermissionRequest:
    return pb.ResolvePermissionRequest(execution_id=RUN, permission_id=permission_id, allow=allow, **fields)


def open_gate(model: ModelClient) -> None:
    (model.client.service.workspace / "gate").touch()


@pytest.mark.slow
async def test_a_message_is_told_before_the_next_request_and_only_once(directory: Path) -> None:
    replies = [GATE, {"text": "Done.", "expects": "use tabs, please\nand mind the tests"}]
    async with playing(directory, replies) as model:
        await model.start(RUN)
        await model.until(RUN, "tool_call")
        for text, message_id in (("use tabs, please", "m1"), ("use tabs, please", "m1"), ("and mind the tests", "m2")):
            await model.client.stub.SendMessage(say(text, message_id))
        error = await refused(model.client.stub.SendMessage(say("other words", "m1")))
        assert isinstance(error, AlreadyExists)
        open_gate(model)
        seen = await model.client.watch(RUN)
        assert seen.end.state == State.STATE_SUCCEEDED, seen.end.message
        assert [(one.message_id, one.text) for one in of(seen, "message_delivered")] == [
            ("m1", "use tabs, please"),
            ("m2", "and mind the tests"),
        ]
        await model.client.stub.SendMessage(say("use tabs, please", "m1"))
        error = await refused(model.client.stub.SendMessage(say("too late", "m3")))
        assert isinstance(error, FailedPrecondition)
        assert error.reason == "EXECUTION_STATE"


@pytest.mark.slow
async def test_a_message_during_the_last_words_makes_the_model_go_on(directory: Path) -> None:
    replies = [
        {"text": "So. " * 3000, "faults": ["silence:8"]},
        {"text": "Now I am done.", "expects": "one more thing"},
    ]
    async with playing(directory, replies) as model:
        await model.start(RUN)
        await model.until(RUN, "text")
        await model.client.stub.SendMessage(say("one more thing"))
        seen = await model.client.watch(RUN)
    assert seen.end.state == State.STATE_SUCCEEDED, seen.end.message
    assert len(of(seen, "message_delivered")) == 1


@pytest.mark.slow
async def test_neither_death_loses_or_doubles_a_message(directory: Path) -> None:
    replies = [GATE, {"text": "Done.", "expects": "^this call was interrupted(.|\n)*remember the milk$"}]
    async with playing(directory, replies) as model:
        await model.start(RUN)
        await model.until(RUN, "tool_call")
        await model.client.stub.SendMessage(say("remember the milk"))
        service = model.client.service
        service.kill()
        runner = RunDirectory(service.run_directory(RUN)).holder()
        assert runner
        os.kill(runner, signal.SIGKILL)
        service.start()
        await model.start_once_more()
        await model.client.stub.SendMessage(say("remember the milk"), wait_for_ready=True)
        seen = await model.client.watch(RUN)
    assert seen.end.state == State.STATE_SUCCEEDED, seen.end.message
    assert [one.message_id for one in of(seen, "message_delivered")] == ["m1"]


async def test_a_program_takes_no_messages_and_asks_nothing(shared: Client) -> None:
    name = new_id("deaf")
    await shared.start(name, "sleep 60")
    error = await refused(shared.stub.SendMessage(say("hello", execution_id=name)))
    assert isinstance(error, FailedPrecondition)
    assert error.reason == "ENGINE_TAKES_NO_MESSAGES"
    ask = pb.ResolvePermissionRequest(execution_id=name, permission_id="p1")
    error = await refused(shared.stub.ResolvePermission(ask))
    assert isinstance(error, NotFound)
    assert error.reason == "PERMISSION_NOT_FOUND"
    error = await refused(shared.stub.SendMessage(pb.SendMessageRequest()))
    assert isinstance(error, Invalid)
    assert {field for field, _ in error.violations} == {"execution_id", "message_id", "text"}
    await shared.stop(name, 0)


@pytest.mark.slow
async def test_what_must_be_asked_waits_for_the_first_answer(directory: Path) -> None:
    replies = [CALL, {"text": "Done."}]
    async with playing(directory, replies) as model:
        await model.start(RUN, ask_before=["bash"])
        (asked,) = of(await model.until(RUN, "permission_request"), "permission_request")
        assert (asked.permission_id, asked.tool) == ("p1", "bash")
        assert (await model.client.get(RUN)).pending_permissions == [asked]
        assert not (model.client.service.workspace / "file").exists()
        first = await model.client.stub.ResolvePermission(resolve(True, decided_by="ann", reason="fine"))
        second = await model.client.stub.ResolvePermission(resolve(False, decided_by="bob"))
        assert first == second
        seen = await model.client.watch(RUN)
        assert (await model.client.stub.ResolvePermission(resolve(False))) == first, "also when it has ended"
    assert (seen.end.state, len(seen.end.pending_permissions)) == (State.STATE_SUCCEEDED, 0)
    assert of(seen, "permission_answer") == [first.answer]
    assert (first.answer.decided_by, first.answer.reason, first.answer.allowed) == ("ann", "fine", True)
    assert results(seen) == ["done"]


async def test_a_refusal_is_told_to_the_model_and_nothing_is_done(directory: Path) -> None:
    replies = [CALL, {"text": "Then not.", "expects": "ann does not allow it: not on a friday"}]
    async with playing(directory, replies) as model:
        await model.start(RUN, ask_before=["bash", "create"])
        await model.until(RUN, "permission_request")
        await model.client.stub.ResolvePermission(resolve(False, decided_by="ann", reason="not on a friday"))
        seen = await model.client.watch(RUN)
        assert not (model.client.service.workspace / "file").exists()
    assert seen.end.state == State.STATE_SUCCEEDED, seen.end.message
    assert (len(of(seen, "tool_call")), of(seen, "tool_result")[0].is_error) == (0, True)


@pytest.mark.slow
async def test_a_question_outlives_both_and_is_asked_once(directory: Path) -> None:
    async with playing(directory, [CALL, {"text": "Done."}]) as model:
        await model.start(RUN, ask_before=["bash"])
        await model.until(RUN, "permission_request")
        service = model.client.service
        service.kill()
        runner = RunDirectory(service.run_directory(RUN)).holder()
        assert runner
        os.kill(runner, signal.SIGKILL)
        service.start()
        await model.start_once_more()
        await model.until(RUN, "note")
        await model.client.stub.ResolvePermission(resolve(True))
        seen = await model.client.watch(RUN)
    assert seen.end.state == State.STATE_SUCCEEDED, seen.end.message
    assert [len(of(seen, kind)) for kind in ("permission_request", "permission_answer")] == [1, 1]
    assert results(seen) == ["done"]


@pytest.mark.slow
async def test_a_tool_that_is_not_there_cannot_be_asked_about(directory: Path) -> None:
    async with playing(directory, [CALL]) as model:
        error = await refused(model.start(RUN, ask_before=["bash", "hammer"]))
    assert isinstance(error, Invalid)
    assert [field for field, _ in error.violations] == ["spec.agent.anthropic.ask_before"]


async def test_only_the_kinds_that_are_wanted_are_sent(shared: Client) -> None:
    name = new_id("kinds")
    await shared.run(name, "echo x; echo y >&2; exit 3")
    request = pb.WatchEventsRequest(execution_id=name, follow=True, kinds=[2])
    messages = [one async for one in shared.stub.WatchEvents(request)]
    events = [event for message in messages for event in message.events]
    assert {event.WhichOneof("kind") for event in events} == {"state_change"}
    last = messages[-1].end.last_sequence
    assert (events[0].sequence, events[-1].sequence, messages[-1].next_sequence) == (1, last, last + 1)
    error = await refused(shared.stub.WatchEvents(pb.WatchEventsRequest(execution_id=name, kinds=[0, 99])).read())
    assert isinstance(error, Invalid)
