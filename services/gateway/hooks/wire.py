"""Between the contract's messages and hooks. Checks everything that a request can get wrong."""

from datetime import UTC, datetime
from typing import Final

from boatyard.gateway.v1 import hook_pb2 as pb

from services.common.ids import new_id
from services.gateway.catalog.wire import project_id_of
from services.gateway.hooks.model import (
    DEFAULT_TIMEOUT,
    MAX_COMMAND_BYTES,
    MAX_TIMEOUT,
    FailurePolicy,
    Hook,
    HookEvent,
)
from services.gateway.wire import Checks, duration, timestamp
from services.lifecycle.webhooks import AllowList, new_secret, secret_complaint, url_complaint

_EVENTS: Final = {
    pb.Hook.EVENT_PRE: HookEvent.PRE,
    pb.Hook.EVENT_POST: HookEvent.POST,
    pb.Hook.EVENT_ERROR: HookEvent.ERROR,
}
_EVENT_NUMBERS: Final = {event: number for number, event in _EVENTS.items()}
_POLICIES: Final = {
    pb.Hook.FAILURE_POLICY_FAIL: FailurePolicy.FAIL,
    pb.Hook.FAILURE_POLICY_IGNORE: FailurePolicy.IGNORE,
}
_POLICY_NUMBERS: Final = {policy: number for number, policy in _POLICIES.items()}


def hook_of(check: Checks, message: pb.Hook, allowed: AllowList) -> Hook:
    """Read a hook that is to be registered; a webhook without a secret gets one."""
    timeout = DEFAULT_TIMEOUT
    if message.HasField("timeout"):
        timeout = check.duration("hook.timeout", message.timeout, MAX_TIMEOUT)
    event = check.choice("hook.event", message.event, _EVENTS)
    command, webhook = "", message.webhook
    if not message.HasField("webhook"):
        command = check.text("hook.command", message.command, MAX_COMMAND_BYTES, required=True)
    elif complaint := url_complaint(webhook.url, allowed):
        check.add("hook.webhook.url", complaint)
    if webhook.secret and (complaint := secret_complaint(webhook.secret)):
        check.add("hook.webhook.secret", complaint)
    return Hook(
        hook_id=new_id("hook"),
        project_id=project_id_of(check, "hook.project_id", message.project_id),
        event=event,
        command=command,
        url=webhook.url,
        secret=webhook.secret or (new_secret() if message.HasField("webhook") else ""),
        failure_policy=_policy_of(check, message, event),
        order=message.order,
        timeout=timeout,
        create_time=datetime.now(UTC),
    )


def hook_message(value: Hook, *, with_secret: bool = False) -> pb.Hook:
    """Write a hook."""
    message = pb.Hook(
        hook_id=value.hook_id,
        project_id=value.project_id,
        event=_EVENT_NUMBERS[value.event],
        order=value.order,
        timeout=duration(value.timeout),
        create_time=timestamp(value.create_time),
        failure_policy=_POLICY_NUMBERS[value.failure_policy],
    )
    if value.url:
        message.webhook.url = value.url
        message.webhook.secret = value.secret if with_secret else ""
    else:
        message.command = value.command
    return message


def _policy_of(check: Checks, message: pb.Hook, event: HookEvent) -> FailurePolicy:
    if message.failure_policy == pb.Hook.FAILURE_POLICY_UNSPECIFIED:
        return FailurePolicy.FAIL if event is HookEvent.PRE else FailurePolicy.IGNORE
    policy = check.choice("hook.failure_policy", message.failure_policy, _POLICIES)
    if event is HookEvent.ERROR and policy is FailurePolicy.FAIL:
        check.add("hook.failure_policy", "must be IGNORE for ERROR: the job has failed already")
    return policy
