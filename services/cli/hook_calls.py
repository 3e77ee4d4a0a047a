"""`boatyard hook calls` and `boatyard hook test`: which hooks were called, and what one answers."""

import click
from boatyard.gateway.v1 import hook_pb2

from services.cli import humanize, options, shapes
from services.cli.clients import with_gateway
from services.cli.exit_codes import FAILED, SUCCEEDED
from services.cli.fields import choices
from services.cli.screen import Screen, first_line

_STATES = choices(hook_pb2.HookCall.State.DESCRIPTOR)
_TEST_SECONDS = 590.0  # as long as a server takes at most
_COLUMNS = ("HOOK", "JOB", "WHEN", "STATE", "AGE", "TOOK", "TRIES", "ANSWERED")


@click.command("calls")
@click.option("--hook", type=options.TEXT, metavar="ID", default="", help="Only calls of this hook.")
@click.option("--job", type=options.TEXT, metavar="ID", default="", help="Only calls for this job.")
@options.of_project("Only calls for jobs")
@click.option(
    "--state", type=click.Choice(list(_STATES)), multiple=True, help="Only calls in this state; may be repeated."
)
@click.option(
    "-n", "--limit", metavar="N", type=click.IntRange(1), default=100, show_default=True, help="List at most N."
)
@options.as_json
def calls(*, hook: str, job: str, project: str, state: tuple[str, ...], limit: int, as_json: bool) -> None:
    """List calls of hooks, newest first."""
    request = hook_pb2.ListHookCallsRequest(
        hook_id=hook,
        job_id=job,
        project_id=project,
        states=[hook_pb2.HookCall.State.ValueType(_STATES[name]) for name in state],
    )
    hook_calls = with_gateway(lambda gateway: gateway.list_all(gateway.hooks.ListHookCalls, request, limit))
    Screen().listing(hook_calls, _shape, _COLUMNS, _row, as_json=as_json, cut_last=True)


@click.command("test")
@click.argument("id_", metavar="ID", type=options.TEXT)
@click.option(
    "--job", type=options.TEXT, metavar="ID", default="", help="Call it with this job (default: a sample job)."
)
@options.as_json
def test(*, id_: str, job: str, as_json: bool) -> int:
    """Call a hook once and show its answer, as a job would get it. Nothing is recorded, and no job changes.

    Exits with 1 when the hook failed, or would not let the job continue.
    """
    request = hook_pb2.DryRunHookRequest(hook_id=id_, job_id=job)
    answer = with_gateway(lambda gateway: gateway.ask(gateway.hooks.DryRunHook(request, timeout=_TEST_SECONDS)))
    shape = _dry_run_shape(answer)
    if as_json:
        Screen().json(shape)
    else:
        for label, value in shape.items():
            if value not in (None, {}) and label != "kind":
                text = ", ".join(f"{name}={each}" for name, each in value.items()) if isinstance(value, dict) else value
                Screen().field(label, str(text))
    if answer.outcome != hook_pb2.HookCall.STATE_DONE:
        return FAILED
    return SUCCEEDED


def _dry_run_shape(answer: hook_pb2.DryRunHookResponse) -> shapes.Shape:
    return {
        "kind": "dry_run",
        "call_id": answer.call_id,
        "outcome": shapes.name(hook_pb2.HookCall.State.Name, answer.outcome),
        "status": answer.status,
        "answer": answer.answer or None,
        "veto_reason": answer.veto_reason or None,
        "prompt_addition": answer.prompt_addition or None,
        "labels": dict(answer.labels),
        "ask": answer.ask or None,
        "duration_ms": answer.duration.ToMilliseconds(),
    }


def _shape(call: hook_pb2.HookCall) -> shapes.Shape:
    ended = call.HasField("end_time")
    return {
        "kind": "hook_call",
        "call_id": call.call_id,
        "hook_id": call.hook_id,
        "job_id": call.job_id,
        "project_id": call.project_id,
        "attempt": call.attempt,
        "event": shapes.name(hook_pb2.Hook.Event.Name, call.event, "EVENT_"),
        "stage": call.stage or None,
        "state": shapes.name(hook_pb2.HookCall.State.Name, call.state),
        "times_begun": call.times_begun,
        "tries": call.tries or None,
        "status": call.status or None,
        "answer": call.answer or None,
        "start_time": shapes.time(call.start_time),
        "duration_ms": call.end_time.ToMilliseconds() - call.start_time.ToMilliseconds() if ended else None,
    }


def _row(call: hook_pb2.HookCall) -> tuple[str, ...]:
    shape = _shape(call)
    return (
        call.hook_id,
        call.job_id,
        when(call),
        str(shape["state"]).lower(),
        humanize.age(call.start_time),
        humanize.duration(shape["duration_ms"]) if call.HasField("end_time") else "",
        str(call.tries or ""),
        first_line(f"{call.status}: {call.answer}" if call.answer else call.status, 80),
    )


def when(called: hook_pb2.Hook | hook_pb2.HookCall) -> str:
    """Return when a hook is called: `pre`, `before push`."""
    event = shapes.name(hook_pb2.Hook.Event.Name, called.event, "EVENT_").lower()
    return f"{event} {called.stage}" if called.stage else event
