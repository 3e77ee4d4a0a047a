"""`boatyard hook`."""

import uuid

import click
from boatyard.gateway.v1 import hook_pb2

from services.cli import options, shapes, words
from services.cli.catalogue import with_gateway
from services.cli.clients import Gateway
from services.cli.screen import Screen, one_line
from services.cli.typed import duration, text_or_file

_EVENTS = {"pre": hook_pb2.Hook.EVENT_PRE, "post": hook_pb2.Hook.EVENT_POST, "error": hook_pb2.Hook.EVENT_ERROR}
_POLICIES = {"fail": hook_pb2.Hook.FAILURE_POLICY_FAIL, "ignore": hook_pb2.Hook.FAILURE_POLICY_IGNORE}
_INT32 = click.IntRange(-(2**31), 2**31 - 1)
_COLUMNS = ("HOOK", "EVENT", "ORDER", "ON FAILURE", "AGE", "CALLS")


@click.group("hook", short_help="Manage hooks.")
def command() -> None:
    """What is called before jobs, with their results, and with their errors: commands and webhooks.

    Every command takes --json.
    """


@command.command("register")
@click.option("--event", type=click.Choice(list(_EVENTS)), required=True, help="When it is called.")
@click.option(
    "--command",
    "line",
    type=options.TEXT,
    metavar="LINE",
    help="A line for /bin/sh, run in a sandbox; the job is its input.",
)
@click.option("--webhook", type=options.TEXT, metavar="URL", help="A server, which gets a signed POST.")
@click.option(
    "--secret",
    type=options.TEXT,
    metavar="@FILE|whsec_…",
    help="The webhook's secret (default: one is made, and printed).",
)
@click.option(
    "--order", type=click.IntRange(-(2**31), 2**31 - 1), metavar="N", default=0, help="Lower ones are called first."
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="Seconds that the command, or each try of the webhook, may take (default: 30).",
)
@click.option(
    "--on-failure",
    type=click.Choice(list(_POLICIES)),
    help="Whether the job fails when the hook does (default: fail for pre, else ignore).",
)
@click.option(
    "--project",
    type=options.TEXT,
    metavar="ID",
    default="",
    help="The project whose jobs it is called for (default: default).",
)
@options.as_json
def register(
    *,
    event: str,
    line: str | None,
    webhook: str | None,
    secret: str | None,
    order: int,
    timeout: float | None,
    on_failure: str | None,
    project: str,
    as_json: bool,
) -> None:
    """Register a hook, and print its id; for a webhook its secret too, which is never shown again.

    A pre hook may veto the job: a command by another exit code than 0, a webhook by the answer
    {"allow": false, "reason": "…"}. A webhook's calls are signed as Standard Webhooks.

    \b
    Examples:
      boatyard hook register --event pre --command "grep -q approved"
      boatyard hook register --event post --webhook https://ci.example/boatyard
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    if (line is None) == (webhook is None):
        raise click.UsageError("give either --command or --webhook")
    if secret is not None and webhook is None:
        raise click.UsageError("--secret is for --webhook")
    hook = hook_pb2.Hook(project_id=project, event=_EVENTS[event], order=order)
    if on_failure is not None:
        hook.failure_policy = _POLICIES[on_failure]
    if timeout is not None:
        hook.timeout.CopyFrom(duration(timeout))
    if webhook is not None:
        hook.webhook.url = webhook
        hook.webhook.secret = text_or_file(secret or "")
    else:
        hook.command = line or ""
    request = hook_pb2.RegisterHookRequest(request_id=uuid.uuid4().hex, hook=hook)  # safe to retry
    made = with_gateway(lambda way: way.ask(way.hooks.RegisterHook(request))).hook
    if as_json:
        Screen().json(shapes.line(_shape(made) | {"secret": made.webhook.secret or None}))
        return
    click.echo(made.hook_id)
    if made.webhook.secret:
        click.echo(made.webhook.secret)


@command.command("list")
@click.option("--project", type=options.TEXT, metavar="ID", default="", help="Only of this project (default: of all).")
@options.as_json
def show_all(project: str, as_json: bool) -> None:
    """List hooks, in the order in which they are called."""
    screen = Screen()
    found = with_gateway(lambda way: _all(way, project))
    if as_json:
        for hook in found:
            screen.json(shapes.line(_shape(hook)))
    else:
        screen.table(_COLUMNS, map(_row, found), cut_last=True)


@command.command("unregister")
@click.argument("id_", metavar="ID", type=options.TEXT)
@options.as_json
def unregister(id_: str, as_json: bool) -> None:
    """Remove a hook. Jobs that have been taken already still call it."""
    with_gateway(lambda way: way.ask(way.hooks.UnregisterHook(hook_pb2.UnregisterHookRequest(hook_id=id_))))
    if not as_json:
        Screen().say(f"{id_} is gone", style="")


async def _all(way: Gateway, project: str) -> list[hook_pb2.Hook]:
    found: list[hook_pb2.Hook] = []
    token = ""
    while True:
        request = hook_pb2.ListHooksRequest(project_id=project, page_size=1000, page_token=token)
        answer = await way.ask(way.hooks.ListHooks(request))
        found += answer.hooks
        token = answer.next_page_token
        if not token:
            return found


def _shape(hook: hook_pb2.Hook) -> shapes.Shape:
    return {
        "kind": "hook",
        "hook_id": hook.hook_id,
        "project_id": hook.project_id,
        "event": shapes.name(hook_pb2.Hook.Event.Name, hook.event, "EVENT_"),
        "command": hook.command or None,
        "url": hook.webhook.url or None,
        "order": hook.order,
        "timeout_s": hook.timeout.ToNanoseconds() / 1e9,
        "failure_policy": shapes.name(hook_pb2.Hook.FailurePolicy.Name, hook.failure_policy, "FAILURE_POLICY_"),
        "create_time": shapes.time(hook.create_time),
    }


def _row(hook: hook_pb2.Hook) -> tuple[str, ...]:
    shape = _shape(hook)
    return (
        hook.hook_id,
        str(shape["event"]).lower(),
        str(hook.order),
        str(shape["failure_policy"]).lower(),
        words.age(hook.create_time),
        hook.webhook.url or one_line(hook.command, 80),
    )
