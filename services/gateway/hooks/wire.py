"""Between the contract's messages and hooks. Checks everything that a request can get wrong."""

from datetime import UTC, datetime
from typing import Final

from boatyard.gateway.v1 import hook_pb2 as pb

from services.common.ids import new_id
from services.gateway.catalog.wire import project_id_of
from services.gateway.hooks.model import DEFAULT_TIMEOUT, MAX_COMMAND_BYTES, MAX_TIMEOUT, Hook, HookEvent
from services.gateway.wire import Checks, duration, timestamp

_EVENTS: Final = {pb.Hook.EVENT_PRE: HookEvent.PRE}
_EVENT_NUMBERS: Final = {event: number for number, event in _EVENTS.items()}


def hook_of(check: Checks, message: pb.Hook) -> Hook:
    """Read a hook that is to be registered."""
    timeout = DEFAULT_TIMEOUT
    if message.HasField("timeout"):
        timeout = check.duration("hook.timeout", message.timeout, MAX_TIMEOUT)
    return Hook(
        hook_id=new_id("hook"),
        project_id=project_id_of(check, "hook.project_id", message.project_id),
        event=check.choice("hook.event", message.event, _EVENTS),
        command=check.text("hook.command", message.command, MAX_COMMAND_BYTES, required=True),
        order=message.order,
        timeout=timeout,
        create_time=datetime.now(UTC),
    )


def hook_message(value: Hook) -> pb.Hook:
    """Write a hook."""
    return pb.Hook(
        hook_id=value.hook_id,
        project_id=value.project_id,
        event=_EVENT_NUMBERS[value.event],
        command=value.command,
        order=value.order,
        timeout=duration(value.timeout),
        create_time=timestamp(value.create_time),
    )
