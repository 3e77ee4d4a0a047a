"""Convert hooks and their calls between messages and values, and check everything that a request can get wrong."""

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
from services.gateway import scope
from services.gateway.catalog.update_wire import Form
from services.gateway.catalog.wire import project_id_from_proto
from services.gateway.hooks.store import IMMUTABLE
from services.gateway.values.catalog import DEFAULT_PROJECT_ID
from services.gateway.values.hooks import (
    DEFAULT_TIMEOUT,
    MAX_COMMAND_BYTES,
    MAX_SCOPE,
    MAX_TIMEOUT,
    CallFilter,
    CallView,
    FailurePolicy,
    Hook,
)
from services.gateway.wire.times import duration_to_proto, timestamp_to_proto
from services.gateway.wire.validation import Validator
from services.lifecycle.hook_dry_run import DryRunResult
from services.lifecycle.model.hook_calls import CallState
from services.lifecycle.model.states import HOOK_STAGES, HookEvent
from services.lifecycle.webhooks import AllowList, callback_complaint, new_secret, secret_complaint, url_complaint

_EVENTS: Final = {pb.Hook.Event.Value(f"EVENT_{event}"): event for event in HookEvent}
_CALL_STATES: Final = {pb.HookCall.State.Value(f"STATE_{state}"): state for state in CallState}
_CALL_STATE_NUMBERS: Final = {state: number for number, state in _CALL_STATES.items()}
_EVENT_NUMBERS: Final = {event: number for number, event in _EVENTS.items()}
_POLICIES: Final = {
    pb.Hook.FAILURE_POLICY_FAIL: FailurePolicy.FAIL,
    pb.Hook.FAILURE_POLICY_IGNORE: FailurePolicy.IGNORE,
}
_SECRET_PATHS: Final = frozenset({"webhook", "webhook.secret", "callback", "callback.token"})
_TOKEN_PATTERN: Final = re.compile(r"[\x21-\x7e]{16,1024}")
_POLICY_NUMBERS: Final = {policy: number for number, policy in _POLICIES.items()}


def hook_from_proto(check: Validator, message: pb.Hook, allowed: AllowList) -> Hook:
    """Read a hook that is to be created; make a secret for a webhook or callback without one."""
    timeout = DEFAULT_TIMEOUT
    if message.HasField("timeout"):
        timeout = check.duration("hook.timeout", message.timeout, MAX_TIMEOUT)
    event = check.choice("hook.event", message.event, _EVENTS)
    command, url, secret = "", "", ""
    match message.WhichOneof("action"):
        case "webhook":
            url, secret = _webhook_from_proto(check, message.webhook, allowed)
        case "callback":
            url, secret = _callback_from_proto(check, message.callback, allowed)
        case _:
            command = check.text("hook.command", message.command, MAX_COMMAND_BYTES, required=True)
    if message.all_projects:
        scope.check_all()
    if message.all_projects and message.project_id:
        check.add("hook.all_projects", "excludes `project_id`: set only one of them")
    return Hook(
        hook_id=new_id("hook"),
        project_id="" if message.all_projects else project_id_from_proto(check, "hook.project_id", message.project_id),
        template_ids=_scope_from_proto(check, "hook.template_ids", message.template_ids),
        kinds=_scope_from_proto(check, "hook.kinds", message.kinds),
        event=event,
        stage=_stage_from_proto(check, message.stage, event),
        command=command,
        url=url,
        secret=secret,
        is_callback=message.HasField("callback"),
        failure_policy=_policy_from_proto(check, message, event),
        order=message.order,
        timeout=timeout,
        disabled=message.disabled,
        create_time=datetime.now(UTC),
    )


def list_hook_calls_from_proto(request: pb.ListHookCallsRequest) -> tuple[CallFilter, Page]:
    """Read the filter and the page for listing calls. Raises Invalid with all violations."""
    with Validator() as check:
        filters = CallFilter(
            project_id=check.optional_id("project_id", request.project_id),
            hook_id=check.optional_id("hook_id", request.hook_id),
            job_id=check.optional_id("job_id", request.job_id),
            states=check.choices("states", request.states, _CALL_STATES),
        )
        return filters, check.page(request, request.page_size, request.page_token)


def call_to_proto(value: CallView) -> pb.HookCall:
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
        start_time=timestamp_to_proto(value.start_time),
        end_time=None if value.end_time is None else timestamp_to_proto(value.end_time),
    )


def sample_document(hook: Hook) -> bytes:
    """Make up the document of a job, for a dry run without one, in the state in which this hook would be called."""
    ends = {HookEvent.POST: job_pb2.Job.STATE_SUCCEEDED, HookEvent.ERROR: job_pb2.Job.STATE_FAILED}
    job = job_pb2.Job(
        job_id="job-sample",
        spec=job_pb2.JobSpec(
            project_id=hook.project_id or DEFAULT_PROJECT_ID, kind="task", prompt="A sample: do nothing."
        ),
        state=ends.get(hook.event, job_pb2.Job.STATE_RUNNING),
        execution_ids=["exec-sample"],
        create_time=timestamp_to_proto(datetime.now(UTC)),
    )
    if hook.event is HookEvent.ERROR:
        job.reason, job.message = "AGENT_FAILED", "a sample of a failure"
    return MessageToJson(job, indent=None, ensure_ascii=False).encode()


def dry_run_to_proto(value: DryRunResult) -> pb.DryRunHookResponse:
    """Write the result of a dry run."""
    return pb.DryRunHookResponse(
        call_id=value.call_id,
        outcome=_CALL_STATE_NUMBERS[value.state],
        status=value.status,
        answer=value.text,
        veto_reason=value.answer.veto.reason if value.answer.veto else "",
        prompt_addition=value.answer.prompt_addition,
        labels=value.answer.labels,
        ask=value.answer.ask,
        duration=duration_to_proto(timedelta(seconds=value.seconds)),
    )


def hook_to_proto(value: Hook, *, with_secret: bool = False) -> pb.Hook:
    """Write a hook; its secret or token only `with_secret`."""
    message = pb.Hook(
        hook_id=value.hook_id,
        project_id=value.project_id,
        all_projects=not value.project_id,
        template_ids=value.template_ids,
        kinds=value.kinds,
        event=_EVENT_NUMBERS[value.event],
        stage=value.stage,
        order=value.order,
        timeout=duration_to_proto(value.timeout),
        create_time=timestamp_to_proto(value.create_time),
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


def hook_change_from_proto(
    check: Validator, request: pb.UpdateHookRequest, allowed: AllowList
) -> tuple[str, Callable[[Hook], Hook], bool]:
    """Read an update.

    Return the hook's id, a function that applies the update (which may raise Invalid, too), and True when the update
    may change the secret.
    """
    form = Form(
        "hook",
        partial(hook_to_proto, with_secret=True),
        lambda result_check, message: hook_from_proto(result_check, message, allowed),
        immutable=frozenset({*IMMUTABLE, "all_projects"}),
        nested=frozenset({"webhook", "callback"}),
    )
    hook_id, change = form.change_from_proto(check, request)
    return hook_id, change, not _SECRET_PATHS.isdisjoint(request.update_mask.paths)


def _webhook_from_proto(check: Validator, message: pb.Webhook, allowed: AllowList) -> tuple[str, str]:
    """Read a webhook's URL and secret; make a secret when there is none."""
    if complaint := url_complaint(message.url, allowed):
        check.add("hook.webhook.url", complaint)
    if message.secret and (complaint := secret_complaint(message.secret)):
        check.add("hook.webhook.secret", complaint)
    return message.url, message.secret or new_secret()


def _callback_from_proto(check: Validator, message: pb.Callback, allowed: AllowList) -> tuple[str, str]:
    """Read a callback's URL and token; make a token when there is none."""
    if complaint := callback_complaint(message.url, allowed):
        check.add("hook.callback.url", complaint)
    if message.token and not _TOKEN_PATTERN.fullmatch(message.token):
        check.add("hook.callback.token", "must be 16 to 1024 visible ASCII characters")
    return message.url, message.token or secrets.token_urlsafe(32)


def _scope_from_proto(check: Validator, field: str, values: Sequence[str]) -> tuple[str, ...]:
    if len(values) > MAX_SCOPE:
        check.add(field, f"must be at most {MAX_SCOPE}")
    return tuple(check.required_id(f"{field}[{number}]", value) for number, value in enumerate(values))


def _stage_from_proto(check: Validator, stage: str, event: HookEvent) -> str:
    allowed_stages = HOOK_STAGES.get(event, ("",))
    if stage not in allowed_stages:
        check.add(
            "hook.stage",
            f"must be {' or '.join(allowed_stages)} for {event}" if event in HOOK_STAGES else f"is not for {event}",
        )
    return stage


def _policy_from_proto(check: Validator, message: pb.Hook, event: HookEvent) -> FailurePolicy:
    if message.failure_policy == pb.Hook.FAILURE_POLICY_UNSPECIFIED:
        return FailurePolicy.FAIL if event.may_veto else FailurePolicy.IGNORE
    policy = check.choice("hook.failure_policy", message.failure_policy, _POLICIES)
    if event is HookEvent.ERROR and policy is FailurePolicy.FAIL:
        check.add("hook.failure_policy", "must be IGNORE for ERROR: the job has failed already")
    return policy
