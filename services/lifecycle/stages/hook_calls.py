"""One call of a hook: what is sent, and what its answer means, whoever calls it."""

import json
from dataclasses import dataclass, field
from datetime import datetime

from services.lifecycle.model.hook_answers import HookAnswer, read_answer, veto
from services.lifecycle.model.job_context import Hook
from services.lifecycle.model.node_work import Run
from services.lifecycle.model.states import ExecutionState
from services.lifecycle.stages.executions import exited, last_lines
from services.lifecycle.webhooks import TRIES, Callback, CallFailed, WebhookRequest, Webhooks, answer_complaint

MAX_OUTPUT_BYTES = 64 << 10
"""How much is read of the end of a command's output: as much as of a server's answer."""

_MAX_LINE_BYTES = 512


@dataclass(frozen=True, slots=True)
class ServerCall:
    """A call of a server. `call_id` identifies it; `key` signs it, or is the token that it sends."""

    hook: Hook
    call_id: str
    key: bytes
    document: bytes
    time: datetime
    """When the first call of this id began."""
    tries: int = TRIES


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply of a hook that did not fail. `how` is such as `answered 200`; `line` is what people are shown."""

    how: str
    line: str
    tries: int = 1
    answer: HookAnswer = field(default_factory=HookAnswer)
    text: str = ""
    """The beginning of its output or body."""

    def __str__(self) -> str:
        how = self.how + (f" at try {self.tries}" if self.tries > 1 else "")
        added = ["adds to the prompt"] if self.answer.prompt_addition else []
        if self.answer.labels:
            added.append(f"labels {', '.join(self.answer.labels)}")
        line = " and ".join(added) or self.line
        return f"{how}: {line}" if line else how


class HookFailed(Exception):
    """A hook could not be called, or its answer is wrong; the message says why, and `tries` how often it was called."""

    def __init__(self, message: str, tries: int = 1) -> None:
        super().__init__(message)
        self.tries = tries


def environment_of(hook: Hook) -> dict[str, bytes]:
    """Return the environment variables of a command."""
    named = {"BOATYARD_HOOK_ID": hook.hook_id, "BOATYARD_HOOK_EVENT": hook.event, "BOATYARD_HOOK_STAGE": hook.stage}
    return {name: value.encode() for name, value in named.items() if value}


def reply_of_command(hook: Hook, run: Run, tail: bytes) -> Reply:
    """Read the reply from a command's exit and the end of its output. Raises HookFailed."""
    if run.state is not ExecutionState.SUCCEEDED and not exited(run):
        raise HookFailed(f"ended with {run.reason}: {run.message}")
    last = tail.strip().rpartition(b"\n")[2]
    how, line = f"exited with code {run.exit_code}", last_lines(last, _MAX_LINE_BYTES)
    if run.state is not ExecutionState.SUCCEEDED:
        if not hook.event.may_veto:
            raise HookFailed(str(Reply(how, line)))
        return Reply(how, line, answer=HookAnswer(veto(line)), text=line)
    return Reply(how, line, answer=_understood(hook, last, 1), text=_beginning(last))


async def call_server(webhooks: Webhooks, call: ServerCall) -> Reply:
    """Call a server, by HTTP or gRPC. Raises HookFailed."""
    try:
        return await (_ask if call.hook.is_callback else _post)(webhooks, call)
    except CallFailed as failed:
        raise HookFailed(str(failed), failed.tries) from failed


async def _post(webhooks: Webhooks, call: ServerCall) -> Reply:
    hook = call.hook
    head = {"type": f"job.{hook.event.lower()}", "timestamp": call.time.isoformat()}
    about = {"hook_id": hook.hook_id, **({"stage": hook.stage} if hook.stage else {})}
    parts = (json.dumps(head).encode()[:-1], json.dumps(about).encode()[:-1], call.document)
    body = b'%b, "data": %b, "job": %b}}' % parts
    answer = await webhooks.call(WebhookRequest(call.call_id, hook.url, call.key, body, hook.timeout), tries=call.tries)
    if hook.event.may_veto and not answer.is_whole:
        raise HookFailed(
            "its answer is compressed, or longer than 64 KiB: a veto in it could not be read", answer.tries
        )
    text = _beginning(answer.body)
    line = text.strip().partition("\n")[0]
    return Reply(f"answered {answer.status}", line, answer.tries, _understood(hook, answer.body, answer.tries), text)


async def _ask(webhooks: Webhooks, call: ServerCall) -> Reply:
    hook = call.hook
    callback = Callback(
        call.call_id, hook.url, call.key, hook.hook_id, hook.event, hook.stage, call.document, hook.timeout
    )
    answer = await webhooks.ask(callback, tries=call.tries)
    text = _beginning(answer.note.encode())
    line = text.strip().partition("\n")[0]
    if not hook.event.may_veto:
        return Reply("answered", line, answer.tries, text=text)
    return Reply("answered", line, answer.tries, _checked(answer.said, answer.tries), text)


def _beginning(said: bytes) -> str:
    return said[:_MAX_LINE_BYTES].decode(errors="replace")


def _understood(hook: Hook, said: bytes, tries: int) -> HookAnswer:
    """Read the answer of a hook that may veto. The output of other hooks has no meaning."""
    if not hook.event.may_veto:
        return HookAnswer()
    try:
        return _checked(read_answer(said), tries)
    except ValueError as error:
        raise HookFailed(f"its answer has {error}", tries) from error


def _checked(said: HookAnswer, tries: int) -> HookAnswer:
    """Return an answer that keeps the contract's rules."""
    if complaint := answer_complaint(said):
        raise HookFailed(f"its answer is wrong: {complaint}", tries)
    return said
