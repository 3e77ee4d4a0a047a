"""Convert hooks and their calls between messages and values, and check everything that a request can get wrong."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Final

from boatyard.gateway.v1 import hook_pb2 as pb
from boatyard.gateway.v1 import job_pb2
from google.protobuf.json_format import MessageToJson

from services.common import display
from services.common.db.paging import Page
from services.common.home import new_token
from services.common.ids import new_id
from services.common.rpc.mapper import Mapper
from services.common.rpc.rule_options import listed
from services.common.rpc.rules import Check, Violation
from services.common.rpc.times import duration_to_proto, timestamp_to_proto
from services.gateway import scope
from services.gateway.catalog.update_wire import Form
from services.gateway.catalog.wire import project_id_from_proto
from services.gateway.hooks.store import IMMUTABLE
from services.gateway.values.catalog import DEFAULT_PROJECT_ID
from services.gateway.values.hooks import CallFilter, CallView, FailurePolicy, Hook
from services.gateway.wire.requests import page_checks, page_from_proto
from services.lifecycle.hook_dry_run import DryRunResult
from services.lifecycle.model.states import HOOK_STAGES, HookEvent
from services.lifecycle.webhooks import AllowList, new_secret, secret_complaint, url_complaint

_HOOK: Final = Mapper(
    Hook,
    pb.Hook,
    by_hand={"command", "url", "secret", "is_callback", "remove_time", "webhook", "callback", "all_projects"},
)
_CALL: Final = Mapper(CallView, pb.HookCall, by_hand={"begun", "times_begun"})
_CALL_FILTER: Final = Mapper(CallFilter, pb.ListHookCallsRequest, by_hand={"page_size", "page_token"})
_EVENTS: Final = {pb.Hook.Event.Value(f"EVENT_{event}"): event for event in HookEvent}
_SECRET_PATHS: Final = frozenset({"webhook", "webhook.secret", "callback", "callback.token"})


def hook_form(allowed: AllowList) -> Form[Hook]:
    """Return how hooks are created and updated; their servers have addresses that `allowed` admits."""
    return Form(
        "hook",
        partial(hook_to_proto, with_secret=True),
        hook_from_proto,
        lambda message: check_hook(message, allowed),
        immutable=frozenset({*IMMUTABLE, "all_projects"}),
        nested=frozenset({"webhook", "callback"}),
    )


def checks(allowed: AllowList) -> Mapping[str, Check]:
    """Return the rules for requests about hooks as a whole, by their full names."""
    form_checks = hook_form(allowed).checks(pb.CreateHookRequest, pb.UpdateHookRequest)
    return {**form_checks, **page_checks(pb.DESCRIPTOR.services_by_name["HookService"])}


def hook_from_proto(message: pb.Hook) -> Hook:
    """Read a hook that is to be created; make a secret for a webhook or callback without one."""
    if message.all_projects:
        scope.check_all()
    webhook, callback = message.webhook, message.callback
    is_callback = message.HasField("callback")
    secret = callback.token or new_token() if is_callback else ""
    if message.HasField("webhook"):
        secret = webhook.secret or new_secret()
    event = _EVENTS[message.event]
    return _HOOK.from_proto(
        message,
        hook_id=new_id("hook"),
        project_id="" if message.all_projects else project_id_from_proto(message.project_id),
        command=message.command,
        url=webhook.url or callback.url,
        secret=secret,
        is_callback=is_callback,
        create_time=datetime.now(UTC),
        **({} if message.failure_policy else {"failure_policy": _default_policy(event)}),
    )


def check_hook(message: pb.Hook, allowed: AllowList) -> Iterator[Violation]:
    """Yield what is wrong with a hook as a whole, and with the server that it calls."""
    if not message.event:
        yield "event", "is required"
    elif event := _EVENTS.get(message.event):
        yield from _check_event(message, event)
    if message.all_projects and message.project_id:
        yield "all_projects", "excludes `project_id`: set only one of them"
    match message.WhichOneof("action"):
        case "webhook":
            if complaint := url_complaint(message.webhook.url, allowed):
                yield "webhook.url", complaint
            if message.webhook.secret and (complaint := secret_complaint(message.webhook.secret)):
                yield "webhook.secret", complaint
        case "callback":
            if complaint := url_complaint(message.callback.url, allowed):
                yield "callback.url", complaint
        case None:
            yield "command", "is required, or `webhook`, or `callback`"


def list_hook_calls_from_proto(request: pb.ListHookCallsRequest) -> tuple[CallFilter, Page]:
    """Read the filter and the page for listing calls."""
    return _CALL_FILTER.from_proto(request), page_from_proto(request)


def call_to_proto(value: CallView) -> pb.HookCall:
    """Write a call."""
    shown = {"status": display.one_line(value.status), "answer": display.one_line(value.answer)}
    return _CALL.to_proto(value, times_begun=value.begun, **shown)


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
    return display.in_json(MessageToJson(job, indent=None, ensure_ascii=False)).encode()


def dry_run_to_proto(value: DryRunResult) -> pb.DryRunHookResponse:
    """Write the result of a dry run."""
    return pb.DryRunHookResponse(
        call_id=value.call_id,
        outcome=pb.HookCall.State.Value(f"STATE_{value.state}"),
        status=display.one_line(value.status),
        answer=display.one_line(value.text),
        veto_reason=value.answer.veto.reason if value.answer.veto else "",
        prompt_addition=value.answer.prompt_addition,
        labels=value.answer.labels,
        ask=value.answer.ask,
        duration=duration_to_proto(value.seconds),
    )


def hook_to_proto(value: Hook, *, with_secret: bool = False) -> pb.Hook:
    """Write a hook; its secret or token only `with_secret`."""
    message = _HOOK.to_proto(value, all_projects=not value.project_id)
    if value.is_callback:
        message.callback.url = value.url
        message.callback.token = value.secret if with_secret else ""
    elif value.url:
        message.webhook.url = value.url
        message.webhook.secret = value.secret if with_secret else ""
    else:
        message.command = value.command
    return message


def may_change_secret(request: pb.UpdateHookRequest) -> bool:
    """Return True when an update may make a new secret, which the caller is then told."""
    return not _SECRET_PATHS.isdisjoint(request.update_mask.paths)


def _default_policy(event: HookEvent) -> FailurePolicy:
    return FailurePolicy.FAIL if event.may_veto else FailurePolicy.IGNORE


def _check_event(message: pb.Hook, event: HookEvent) -> Iterator[Violation]:
    stages = HOOK_STAGES.get(event, ("",))
    if message.stage not in stages:
        yield "stage", f"must be {listed(stages)} for {event}" if event in HOOK_STAGES else f"is not for {event}"
    if message.on_cancel and event is not HookEvent.ERROR:
        yield "on_cancel", f"is for the event ERROR alone, not for {event}"
    if event is HookEvent.ERROR and message.failure_policy == pb.Hook.FAILURE_POLICY_FAIL:
        yield "failure_policy", "must be IGNORE for ERROR: the job has failed already"
