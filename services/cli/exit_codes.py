"""Exit codes, and the error that is printed: one clear sentence on standard error."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, cast

import click

from services.cli.streams import OutputLostError
from services.common import display
from services.common.errors import REQUEST_ID, Invalid, ServiceError, StartError, Status
from services.common.reasons import REASONS

if TYPE_CHECKING:
    from services.cli.flags import Flag

SUCCEEDED = 0
FAILED = 1
USAGE = 2
CANCELLED = 3
UNREACHABLE = 4
WAITING = 5
INTERRUPTED = 130
NO_READER = 141
"""As shells have it for a program that SIGPIPE has ended."""

TRACEBACK_VARIABLE = "BOATYARD_TRACEBACK"
_FAULT = f"this is a fault of Boatyard's command line ({TRACEBACK_VARIABLE}=1 shows where it is)"

_OF_STATUS = {
    Status.INVALID_ARGUMENT: USAGE,
    Status.NOT_FOUND: USAGE,
    Status.ALREADY_EXISTS: USAGE,
    Status.FAILED_PRECONDITION: USAGE,
    Status.OUT_OF_RANGE: USAGE,
    Status.UNAUTHENTICATED: UNREACHABLE,
    Status.PERMISSION_DENIED: UNREACHABLE,
    Status.UNAVAILABLE: UNREACHABLE,
    Status.DEADLINE_EXCEEDED: UNREACHABLE,
}

_ADVICE = {
    "REQUEST_ID_REUSED": "use another --request-id, or none",
    "JOB_STATE": "`boatyard show` has the details",
    "EXECUTION_STATE": "`boatyard show` has the details",
    "ENGINE_TAKES_NO_MESSAGES": "models (--engine anthropic) take messages; use `boatyard attach` for a --terminal",
    "NO_TERMINAL": "start the agent with `boatyard run --terminal`",
    "EVENTS_OUT_OF_RANGE": "start with one of these: `boatyard logs --from`",
    "DATABASE_UNAVAILABLE": "the gateway continues by itself when the database is back",
    "CELL_UNAVAILABLE": "`boatyard cells` shows which cells answer",
    "TOO_MANY_FAILURES": "valid tokens are still let in: use one, or wait",
    "TOO_MANY_CALLS": "end what follows jobs or executions with this token, or use another one for it",
    "CELL_STATE": "`boatyard cells` shows its state",
    "NO_RESULT": "`boatyard show` shows how far it has got",
    "CHANGES_NOT_POSSIBLE": "`boatyard checkpoints` lists what is waiting",
    "PROJECT_NOT_ALLOWED": "--project or BOATYARD_PROJECT names the project to work in",
    "WORK_ITEM_BUSY": "`boatyard cancel` cancels a job",
    "INTERNAL": REASONS["INTERNAL"].advice,
}

_FOR_ALL_PROJECTS = "a token of all projects, which `boatyard token create` makes without --project, may do it"
"""Advice where it is no other project that would help."""

_WHERE_TYPED = {
    "request_id": "--request-id",
    "repository.url": "the repository's URL",
    "coordinator_id": "--coordinator",
    "spec.prompt": "PROMPT",
    "checkpoint_id": "ID",
    "comment": "the comment",
    "permission_id": "PERMISSION",
    "snapshot_id": "ID",
    "text": "TEXT",
    "reason": "--reason",
    "job_id": "ID",
    "hook.event": "--event",
    "hook.stage": "--stage",
    "hook.on_cancel": "--on-cancel",
    "hook.callback.url": "--callback",
    "hook.callback.token": "--token",
    "hook.webhook.url": "--webhook",
    "hook.webhook.secret": "--secret",
    "hook.command": "--command",
    "hook.timeout": "--timeout",
    "hook.failure_policy": "--on-failure",
    "execution_id": "ID",
    "from_sequence": "--from",
}
"""The names that request fields have on the command line, where no row of flags has one."""

_COMMANDS = {
    "project": "project",
    "repository": "repository",
    "budget": "budget",
    "provider": "provider",
    "template": "template",
    "worker": "worker",
    "work_item": "item",
}
"""Which command makes the resource that a request has in the field of that name."""


class NotAllowedError(Exception):
    """We have no token for a gateway, or must not send it; the message says how to fix that."""


def report(error: Exception, *, as_json: bool) -> int:
    """Print an error on standard error, and return the exit code. Raises the unexpected with BOATYARD_TRACEBACK."""
    match error:
        case click.exceptions.Exit():
            return error.exit_code
        case click.Abort():  # click's word for Ctrl-C
            return INTERRUPTED
        case click.ClickException() if not as_json:
            error.show()
            return error.exit_code
    code, reason, text = _describe(error)
    _print_error(text, reason, as_json=as_json, metadata=error.metadata if isinstance(error, ServiceError) else {})
    return code


def _describe(error: Exception) -> tuple[int, str, str]:
    """Return exit code, reason and text."""
    match error:
        case click.ClickException():
            return error.exit_code, "USAGE", error.format_message()
        case StartError():
            return FAILED, "CANNOT_START", str(error)
        case NotAllowedError():
            return UNREACHABLE, "NOT_ALLOWED", str(error)
        case ServiceError():
            return _OF_STATUS.get(error.status, FAILED), error.reason, message_for(error)
        case _ if os.environ.get(TRACEBACK_VARIABLE):
            raise error
        case _:
            return _unforeseen(error)


def _unforeseen(error: Exception) -> tuple[int, str, str]:
    match error:
        case FileNotFoundError(filename=None):  # what the kernel says of a working directory that was deleted
            return FAILED, "OS_ERROR", "the working directory was deleted: change to another one"
        case OSError(strerror=str() as cause):
            return FAILED, "OS_ERROR", f"{os.fsdecode(error.filename)}: {cause}" if error.filename else cause
        case _:
            return FAILED, "FAULT", f"{_FAULT}: {type(error).__name__}: {error}"


def report_lost_output(lost: OutputLostError) -> int:
    """Say, unless its reader has seen enough, that standard output cannot be written; return the exit code."""
    if lost.has_no_reader:
        return NO_READER
    _print_error(lost.message, "OUTPUT_LOST", as_json="--json" in sys.argv[1:], metadata={})
    return FAILED


def message_for(error: ServiceError) -> str:
    """Return the message for a service's error, with advice if there is some."""
    if isinstance(error, Invalid) and error.violations:
        violations = [f"{_where_typed(field)} {text}" for field, text in error.violations]
        return violations[0] if len(violations) == 1 else "\n".join(["the request is invalid:", *violations])
    advice = _FOR_ALL_PROJECTS if error.metadata.get("needed_projects") == "all" else _ADVICE.get(error.reason)
    request = error.metadata.get(REQUEST_ID)
    message = f"{error.message} (request {request})" if request else error.message
    return f"{message}; {advice}" if advice else message


def _where_typed(field: str) -> str:
    """Return what a field of a request is on the command line, with the key where it is that of a map."""
    from services.cli.flags import option_for  # noqa: PLC0415 - imports the contract, and few commands fail so

    request_part, _, path = field.partition(".")
    if field in _WHERE_TYPED:
        return _WHERE_TYPED[field]
    if request_part in _COMMANDS and path == f"{request_part}_id":
        return "ID"
    return option_for(_flags_of(request_part), path) or field


def _flags_of(request_part: str) -> "Sequence[Flag]":
    if request_part == "spec":
        return cast("Sequence[Flag]", import_module("services.cli.flag_table").RUN)
    if request_part in _COMMANDS:
        kind = import_module(f"services.cli.commands.{_COMMANDS[request_part]}").KIND
        return cast("Sequence[Flag]", kind.flags)
    return ()


def _print_error(text: str, reason: str, *, as_json: bool, metadata: Mapping[str, str]) -> None:
    if as_json:
        body = {"kind": "error", "reason": reason, "message": text, "metadata": dict(metadata)}
        click.echo(json.dumps(body), err=True)
    else:
        click.secho("Error: ", fg="red", bold=True, nl=False, err=True)
        for line in display.message(text):
            click.echo(line, err=True)
