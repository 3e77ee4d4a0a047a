"""Between the contract's messages and hooks. Checks everything that a request can get wrong."""

import re
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from boatyard.gateway.v1 import hook_pb2 as pb
from boatyard.gateway.v1 import job_pb2
from google.protobuf.json_format import MessageToJson

from services.common.db.paging import Page
from services.common.ids import new_id
from services.gateway.auth import scope
from services.gateway.catalog.model import DEFAULT_PROJECT_ID
from services.gateway.catalog.update_wire import Form
from services.gateway.catalog.wire import project_id_of
from services.gateway.hooks.model import (
    DEFAULT_TIMEOUT,
    MAX_COMMAND_BYTES,
    MAX_SCOPE,
    MAX_TIMEOUT,
    CallFilter,
    CallView,
    FailurePolicy,
    Hook,
)
from services.gateway.hooks.store import FIXED
from services.gateway.wire import Checks, duration, timestamp
from services.lifecycle.hook_dry_run import DryRunResult
from services.lifecycle.model.hook_calls import CallState
from services.lifecycle.model.states import STAGES, HookEvent
from services.lifecycle.webhooks import AllowList, callback_complaint, new_secret, secret_complaint, url_complaint

_EVENTS: Final = {pb.Hook.Event.Value(f"EVENT_{event}"): event for event in HookEvent}
_CALL_STATES: Final = {pb.HookCall.State.Value(f"STATE_{state}"): state for state in CallState}
_CALL_STATE_NUMBERS: Final = {state: number for number, state in _CALL_STATES.items()}
_EVENT_NUMBERS: Final = {event: number for number, event in _EVENTS.items()}
_POLICIES: Final = {
    pb.Hook.FAILURE_POLICY_FAIL: FailurePolicy.FAIL,
    pb.Hook.FAILURE_POLICY_IGNORE: FailurePolicy.IGNORE,
}
_WITH_SECRET: Final = frozenset({"webhook", "webhook.secret", "callback", "callback.token"})
_TOKEN: Final = re.compile(r"[\x21-\x7e]{16,1024}")
_POLICY_NUMBERS: Final = {policy: number for number, policy in _POLICIES.items()}


def hook_of(check: Checks, message: pb.Hook, allowed: AllowList) -> Hook:
    """Read a hook that is to be registered; a server without a secret gets one."""
    timeout = DEFAULT_TIMEOUT
    if message.HasField("timeout"):
        timeout = check.duration("hook.timeout", message.timeout, MAX_TIMEOUT)
    event = check.choice("hook.event", message.event, _EVENTS)
    command, url, secret = "", "", ""
    match message.WhichOneof("action"):
        case "webhook":
            url, secret = _webhook(check, message.webhook, allowed)
        case "callback":
            url, secret = _callback(check, message.callback, allowed)
        case _:
            command = check.text("hook.command", message.command, MAX_COMMAND_BYTES, required=True)
    if message.all_projects:
        scope.check_all()
    if message.all_projects and message.project_id:
        check.add("hook.all_projects", "excludes `project_id`: one of them alone")
    return Hook(
        hook_id=new_id("hook"),
        project_id="" if message.all_projects else project_id_of(check, "hook.project_id", message.project_id),
        template_ids=_scope(check, "hook.template_ids", message.template_ids),
        kinds=_scope(check, "hook.kinds", message.kinds),
        event=event,
        stage=_stage_of(check, message.stage, event),
        command=command,
        url=url,
        secret=secret,
        is_callback=message.HasField("callback"),
        failure_policy=_policy_of(check, message, event),
        order=message.order,
        timeout=timeout,
        disabled=message.disabled,
        create_time=datetime.now(UTC),
    )


def calls_wanted(request: pb.ListHookCallsRequest) -> tuple[CallFilter, Page]:
    """Read which calls to list. Raises Invalid with all violations."""
    with Checks() as check:
        wanted = CallFilter(
            project_id=check.optional_id("project_id", request.project_id),
            hook_id=check.optional_id("hook_id", request.hook_id),
            job_id=check.optional_id("job_id", request.job_id),
            states=check.choices("states", request.states, _CALL_STATES),
        )
        return wanted, check.page(request, request.page_size, request.page_token)


def call_message(value: CallView) -> pb.HookCall:
    """Write a call."""
    return pb.HookCall(
        call_id=value.call_id,
        hook_id=value.hook_id,
        job_id=value.job_id,
        project_id=value.project_id,
        attempt=value.attempt,
        event=_EVENT_NUMBERS[value.event],
        stage=value.stage,
        state=_CALL_STATE_NUMBERS[value.state],
        times_begun=value.begun,
        tries=value.tries,
        status=value.status,
        answer=value.answer,
        start_time=timestamp(value.start_time),
        end_time=None if value.end_time is None else timestamp(value.end_time),
    )


def sample_document(hook: Hook) -> bytes:
    """Make up a job, as hooks get it, where nobody has named one: as it would be when this hook is called."""
    ends = {HookEvent.POST: job_pb2.Job.STATE_SUCCEEDED, HookEvent.ERROR: job_pb2.Job.STATE_FAILED}
    job = job_pb2.Job(
        job_id="job-sample",
        spec=job_pb2.JobSpec(
            project_id=hook.project_id or DEFAULT_PROJECT_ID, kind="task", prompt="A sample: do nothing."
        ),
        state=ends.get(hook.event, job_pb2.Job.STATE_RUNNING),
        execution_ids=["exec-sample"],
        create_time=timestamp(datetime.now(UTC)),
    )
    if hook.event is HookEvent.ERROR:
        job.reason, job.message = "AGENT_FAILED", "a sample of a failure"
    return MessageToJson(job, indent=None, ensure_ascii=False).encode()


def rehearsed(value: DryRunResult) -> pb.DryRunHookResponse:
    """Write what came of trying a hook out."""
    return pb.DryRunHookResponse(
        call_id=value.call_id,
        outcome=_CALL_STATE_NUMBERS[value.state],
        status=value.status,
        answer=value.text,
        veto_reason=value.answer.veto.reason if value.answer.veto else "",
        prompt_addition=value.answer.prompt_addition,
        labels=value.answer.labels,
        ask=value.answer.ask,
        duration=duration(timedelta(seconds=value.seconds)),
    )


def hook_message(value: Hook, *, with_secret: bool = False) -> pb.Hook:
    """Write a hook."""
    message = pb.Hook(
        hook_id=value.hook_id,
        project_id=value.project_id,
        all_projects=not value.project_id,
        template_ids=value.template_ids,
        kinds=value.kinds,
        event=_EVENT_NUMBERS[value.event],
        stage=value.stage,
        order=value.order,
        timeout=duration(value.timeout),
        create_time=timestamp(value.create_time),
        failure_policy=_POLICY_NUMBERS[value.failure_policy],
        disabled=value.disabled,
    )
    if value.is_callback:
        message.callback.url = value.url
        message.callback.token = value.secret if with_secret else ""
    elif value.url:
        message.webhook.url = value.url
        message.webhook.secret = value.secret if with_secret else ""
    else:
        message.command = value.command
    return message


def change_of(
    check: Checks, request: pb.UpdateHookRequest, allowed: AllowList
) -> tuple[str, Callable[[Hook], Hook], bool]:
    """Read an update: of which hook it is, what it makes of that (raising Invalid, too), and whether of its secret."""
    form = Form(
        "hook",
        partial(hook_message, with_secret=True),
        lambda inner, message: hook_of(inner, message, allowed),
        fixed=frozenset({*FIXED, "all_projects"}),
        entered=frozenset({"webhook", "callback"}),
    )
    hook_id, change = form.change(check, request)
    return hook_id, change, not _WITH_SECRET.isdisjoint(request.update_mask.paths)


def _webhook(check: Checks, message: pb.Webhook, allowed: AllowList) -> tuple[str, str]:
    """Read a webhook's URL and secret; without one it gets one."""
    if complaint := url_complaint(message.url, allowed):
        check.add("hook.webhook.url", complaint)
    if message.secret and (complaint := secret_complaint(message.secret)):
        check.add("hook.webhook.secret", complaint)
    return message.url, message.secret or new_secret()


def _callback(check: Checks, message: pb.Callback, allowed: AllowList) -> tuple[str, str]:
    """Read a callback's URL and token; without one it gets one."""
    if complaint := callback_complaint(message.url, allowed):
        check.add("hook.callback.url", complaint)
    if message.token and not _TOKEN.fullmatch(message.token):
        check.add("hook.callback.token", "must be 16 to 1024 visible ASCII characters")
    return message.url, message.token or secrets.token_urlsafe(32)


def _scope(check: Checks, field: str, values: Sequence[str]) -> tuple[str, ...]:
    if len(values) > MAX_SCOPE:
        check.add(field, f"must be at most {MAX_SCOPE}")
    return tuple(check.required_id(f"{field}[{number}]", value) for number, value in enumerate(values))


def _stage_of(check: Checks, stage: str, event: HookEvent) -> str:
    known = STAGES.get(event, ("",))
    if stage not in known:
        check.add(
            "hook.stage", f"must be {' or '.join(known)} for {event}" if event in STAGES else f"is not for {event}"
        )
    return stage


def _policy_of(check: Checks, message: pb.Hook, event: HookEvent) -> FailurePolicy:
    if message.failure_policy == pb.Hook.FAILURE_POLICY_UNSPECIFIED:
        return FailurePolicy.FAIL if event.may_veto else FailurePolicy.IGNORE
    policy = check.choice("hook.failure_policy", message.failure_policy, _POLICIES)
    if event is HookEvent.ERROR and policy is FailurePolicy.FAIL:
        check.add("hook.failure_policy", "must be IGNORE for ERROR: the job has failed already")
    return policy
