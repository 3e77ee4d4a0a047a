"""The loop: the model is asked, its tool calls are made, and it is asked again, until it is done or must end."""

import asyncio
from collections.abc import Callable
from functools import partial

from services.common.room import is_out_of_room
from services.execution.engines.anthropic.client import ModelClient, ModelFailedError, ModelUnavailableError
from services.execution.engines.anthropic.history import History, Reply, ToolCall
from services.execution.engines.anthropic.recorder import Recorder
from services.execution.engines.anthropic.task import ModelTask
from services.execution.engines.anthropic.tool_process import NoToolProcessError, ToolProcess
from services.execution.inbox.messages import Inbox
from services.execution.model import Reason, State
from services.execution.processes.verdict import Verdict

_LOOK_S = 0.1
_ROOM_S = 0.5
_DONE = {"end_turn", "stop_sequence"}
_GOES_ON = {"max_tokens", "pause_turn", "tool_use"}
_GO_ON = "Your answer was cut off before it was complete. Go on from there, in smaller steps if it was too long."
_CUT_CALL = (
    "this call was cut off, or its input is no JSON object, so it was not made; make it again, with less at once"
)
_INTERRUPTED = (
    "this call was interrupted: the program that carries you was restarted while it ran. How far it came is not known,"
    " and the shell is a new one. Look before you do it again"
)


class Conversation:
    """One run's conversation, from its beginning or from where an earlier runner stopped."""

    def __init__(
        self,
        task: ModelTask,
        history: History,
        model: ModelClient,
        tools: ToolProcess,
        recorder: Recorder,
        *,
        inbox: Inbox,
    ) -> None:
        self._task = task
        self._inbox = inbox
        self._history = history
        self._model = model
        self._tools = tools
        self._recorder = recorder
        self._interrupted = recorder.activity.calls - recorder.activity.results

    async def run(self) -> Verdict:
        """Hold the conversation to its end, and return the verdict on the run."""
        if self._history.is_empty:
            await self._kept(lambda: self._history.say(self._task.prompt))
        self._record_missing_events()
        try:
            while True:
                reply = self._history.open_reply()
                if reply is not None and (verdict := await self._make_calls(reply)) is not None:
                    return verdict
                await self._deliver()
                if (verdict := self._check_budget()) is not None:
                    return verdict
                await self._ask()
        except ModelFailedError as error:
            return Verdict(State.FAILED, Reason.MODEL_FAILED, f"the model's API refuses: {error}")
        except ModelUnavailableError as error:
            return Verdict(State.FAILED, Reason.MODEL_UNAVAILABLE, f"the model did not answer {error}")
        except NoToolProcessError as error:
            return Verdict(State.FAILED, Reason.SANDBOX_FAILED, str(error))

    def _record_missing_events(self) -> None:
        """Write the events that a killed runner did not get to after it had written the history."""
        for turn, reply in enumerate(self._history.replies(), start=1):
            self._recorder.reply(reply, turn)
        for call_id, (output, is_error) in self._history.results().items():
            self._recorder.result(call_id, output, is_error=is_error)
        for message_id, text in self._history.delivered_messages().items():
            self._recorder.delivered(message_id, text)

    async def _kept(self, add: Callable[[], None]) -> None:
        """Add to the history, as soon as the disk has room: nothing is done that could not be gone on with."""
        while True:
            try:
                return add()
            except OSError as error:
                if not is_out_of_room(error):
                    raise
            await asyncio.sleep(_ROOM_S)

    async def _deliver(self) -> None:
        """Give the model the messages that people have sent."""
        delivered = self._history.delivered_messages()
        for message in self._inbox.messages():
            if message.message_id not in delivered:
                await self._kept(partial(self._history.say, message.text, message.message_id))
                self._recorder.delivered(message.message_id, message.text)

    async def _ask(self) -> None:
        await self._recorder.room()
        reply = await self._model.answer(self._history.messages())
        self._recorder.end_text()
        await self._kept(lambda: self._history.reply(reply))
        self._recorder.reply(reply, len(self._history.replies()))

    async def _make_calls(self, reply: Reply) -> Verdict | None:
        """Make the tool calls of an answer; if it has none, return the verdict when the run ends with it."""
        if not reply.calls:
            return await self._judge(reply)
        for call in reply.calls:
            if call.call_id not in self._history.results():
                await self._recorder.room()
                await self._make_call(call)
        return None

    async def _make_call(self, call: ToolCall) -> None:
        if call.call_id in self._interrupted:
            output, is_error = _INTERRUPTED, True
        elif (refusal := await self._refusal(call)) is not None:
            output, is_error = refusal, True
        else:
            self._recorder.call(call)
            output, is_error = (_CUT_CALL, True) if call.was_cut else await self._tools.call(call.tool, call.arguments)
        await self._kept(lambda: self._history.result(call.call_id, output, is_error=is_error))
        self._recorder.result(call.call_id, output, is_error=is_error)

    async def _refusal(self, call: ToolCall) -> str | None:
        """If permission is needed for a call, ask for it and wait; return what to tell the model when it is denied."""
        if call.tool not in self._task.ask_before or call.was_cut:
            return None
        request = self._recorder.permission_request(call)
        await self._kept(lambda: self._inbox.ask(request))
        self._recorder.asked(request)
        while (answer := self._inbox.answer_to(request.permission_id)) is None:  # noqa: ASYNC110 - it arrives as a file
            await asyncio.sleep(_LOOK_S)
        self._recorder.answered(request.permission_id, answer)
        if answer.allowed:
            return None
        why = f": {answer.reason}" if answer.reason else ""
        return f"this call was not made, because {answer.decided_by or 'a person'} does not allow it{why}"

    async def _judge(self, reply: Reply) -> Verdict | None:
        if reply.stop_reason in _DONE:
            # A message that arrived during the last answer is not lost: the inbox stays open, and the model continues.
            return Verdict(State.SUCCEEDED) if self._inbox.close(set(self._history.delivered_messages())) else None
        if reply.stop_reason in _GOES_ON:
            await self._kept(lambda: self._history.say(_GO_ON))
            return None
        explanations = {
            "refusal": "the model declines to go on with this conversation",
            "model_context_window_exceeded": "the conversation has become longer than the model can read",
        }
        why = explanations.get(
            reply.stop_reason, f"the model stopped for a reason that is not known here: {reply.stop_reason}"
        )
        return Verdict(State.FAILED, Reason.MODEL_FAILED, why)

    def _check_budget(self) -> Verdict | None:
        """Return a verdict when the model must not be asked again; None while it may be."""
        task, activity = self._task, self._recorder.activity
        turns = len(self._history.replies())
        if turns >= task.max_turns:
            text = f"the model was not done after {turns} turns, which is all that it may take (max_turns)"
            return Verdict(State.FAILED, Reason.BUDGET_EXCEEDED, text)
        if task.token_budget is not None and activity.tokens >= task.token_budget:
            text = (
                f"the model was not done after {activity.tokens} tokens, and may use {task.token_budget} (token_budget)"
            )
            return Verdict(State.FAILED, Reason.BUDGET_EXCEEDED, text)
        return None
