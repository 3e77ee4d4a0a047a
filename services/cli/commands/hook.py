"""`boatyard hook`."""

import uuid
from typing import Any

import click
from boatyard.gateway.v1 import hook_pb2
from google.protobuf.field_mask_pb2 import FieldMask

from services.cli import humanize, options, shapes
from services.cli.clients import with_gateway
from services.cli.fields import fill
from services.cli.flags import Flag, options_of
from services.cli.hook_calls import calls, test, when
from services.cli.screen import Screen, one_line, printable

_FLAGS = (
    Flag("--event", "event", "When it is called.", is_fixed=True),
    Flag("--stage", "stage", "For before and after: the stage, such as push.", "NAME", is_fixed=True),
    Flag("--command", "command", "A line for /bin/sh, run in a sandbox; the job is its input.", "LINE"),
    Flag("--webhook", "webhook.url", "A server, which gets a signed POST.", "URL"),
    Flag("--secret", "webhook.secret", "The webhook's (default: one is made, and printed).", "@FILE|whsec_…"),
    Flag("--callback", "callback.url", "A server of yours, which is called by gRPC.", "URL"),
    Flag("--token", "callback.token", "The callback's (default: one is made, and printed).", "@FILE|TEXT"),
    Flag("--order", "order", "Lower ones are called first (default: 0).", "N"),
    Flag("--timeout", "timeout", "Seconds that a command, or each try of a server, may take (default: 30).", "S"),
    Flag(
        "--on-failure", "failure_policy", "What the job does when the hook fails (default: fail before, else ignore)."
    ),
    Flag("--project", "project_id", "The project whose jobs it is for (default: default).", "ID", is_fixed=True),
    Flag("--all-projects", "all_projects", "Call it for the jobs of every project.", is_fixed=True),
    Flag("--template", "template_ids", "Only for jobs of this template; may be repeated.", "ID"),
    Flag("--kind", "kinds", "Only for jobs of this kind; may be repeated.", "KIND"),
)
_CHANGEABLE = [flag for flag in _FLAGS if not flag.is_fixed]
_CLEARABLE = {"template": "template_ids", "kind": "kinds", "order": "order", "timeout": "timeout"}
_ACTIONS = (("command",), ("webhook__url", "webhook__secret"), ("callback__url", "callback__token"))
_COLUMNS = ("HOOK", "WHEN", "FOR", "ORDER", "ON FAILURE", "AGE", "CALLS")


@click.group("hook", short_help="Manage hooks.")
def command() -> None:
    """What is called in the life of jobs, before, after and between their stages: commands and servers.

    Every command takes --json.
    """


def _register(*, as_json: bool, **given: Any) -> None:  # noqa: ANN401 - text, texts or a bool
    """Register a hook, and print its id; for a server its secret or token too, which is never shown again.

    A pre hook, or one before a stage, may veto the job: a command by another exit code than 0, a webhook by the
    answer {"allow": false, "reason": "…"}. It may also have the agent told more, and label the job:
    {"prompt_addition": "…", "labels": {"…": "…"}}, of a command as the last line of its output. A webhook's calls are
    signed as Standard Webhooks; a callback implements boatyard.hook.v1.HookCallbackService.

    \b
    Examples:
      boatyard hook register --event pre --command "grep -q approved"
      boatyard hook register --event before --stage push --kind task --command ./may-publish
      boatyard hook register --event post --webhook https://ci.example/boatyard --all-projects
      boatyard hook register --event pre --callback https://policy.example:7490 --token @token
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    hook = hook_pb2.Hook()
    given = _one_action(given)
    fill(hook, given)
    if hook.WhichOneof("action") is None:
        raise click.UsageError("give --command, --webhook or --callback")
    request = hook_pb2.RegisterHookRequest(request_id=uuid.uuid4().hex, hook=hook)  # safe to retry
    _tell_made(with_gateway(lambda gateway: gateway.ask(gateway.hooks.RegisterHook(request))).hook, as_json=as_json)


@command.command("list")
@click.option(
    "--project",
    type=options.TEXT,
    metavar="ID",
    default="",
    help="Only those that jobs of this project call (default: all).",
)
@options.as_json
def show_all(project: str, as_json: bool) -> None:
    """List hooks, in the order in which they are called."""
    request = hook_pb2.ListHooksRequest(project_id=project)
    found = with_gateway(lambda gateway: gateway.list_all(gateway.hooks.ListHooks, request))
    Screen().listing(found, _shape, _COLUMNS, _row, as_json=as_json, cut_last=True)


@command.command("show")
@click.argument("id_", metavar="ID", type=options.TEXT)
@options.as_json
def show(id_: str, as_json: bool) -> None:
    """Show a hook in full."""
    request = hook_pb2.GetHookRequest(hook_id=id_)
    shape = _shape(with_gateway(lambda gateway: gateway.ask(gateway.hooks.GetHook(request))).hook)
    if as_json:
        Screen().json(shape)
        return
    for label, value in shape.items():
        if value not in (None, []) and label != "kind":
            text = ", ".join(value) if isinstance(value, list) else str(value)
            click.echo(printable(f"{label + ':':<24}{text}"))


def _update(*, id_: str, clear: tuple[str, ...], as_json: bool, **given: Any) -> None:  # noqa: ANN401 - see above
    """Change what the options name of a hook, and nothing else. Jobs that have been taken already call it as it was."""
    hook = hook_pb2.Hook(hook_id=id_)
    paths = [*fill(hook, _one_action(given)), *(_CLEARABLE[name] for name in clear)]
    if not paths:
        raise click.UsageError("say what to change: see --help")
    _tell_made(_change(hook, *paths), as_json=as_json)


@command.command("enable")
@click.argument("id_", metavar="ID", type=options.TEXT)
@options.as_json
def enable(id_: str, as_json: bool) -> None:
    """Have a hook called again."""
    _tell_made(_change(hook_pb2.Hook(hook_id=id_), "disabled"), as_json=as_json)


@command.command("disable")
@click.argument("id_", metavar="ID", type=options.TEXT)
@options.as_json
def disable(id_: str, as_json: bool) -> None:
    """Have a hook called no more, until it is enabled. Jobs that have been taken already still call it."""
    _tell_made(_change(hook_pb2.Hook(hook_id=id_, disabled=True), "disabled"), as_json=as_json)


@command.command("unregister")
@click.argument("id_", metavar="ID", type=options.TEXT)
@options.as_json
def unregister(id_: str, as_json: bool) -> None:
    """Remove a hook. Jobs that have been taken already still call it."""
    with_gateway(lambda gateway: gateway.ask(gateway.hooks.UnregisterHook(hook_pb2.UnregisterHookRequest(hook_id=id_))))
    if not as_json:
        Screen().say(f"{id_} is gone", style="")


command.add_command(calls)
command.add_command(test)


def _made(name: str, run: Any, *parameters: click.Parameter) -> None:  # noqa: ANN401 - a function of options
    command.add_command(options.as_json(click.Command(name, callback=run, help=run.__doc__, params=list(parameters))))


_made("register", _register, *options_of(hook_pb2.Hook, _FLAGS))
_made(
    "update",
    _update,
    click.Argument(["id_"], metavar="ID", type=options.TEXT),
    *options_of(hook_pb2.Hook, _CHANGEABLE),
    click.Option(
        ["--clear"],
        type=click.Choice(list(_CLEARABLE)),
        multiple=True,
        help="Make this empty, or its default, again; may be repeated.",
    ),
)


def _one_action(given: dict[str, Any]) -> dict[str, Any]:
    """Check that the options name one action only."""
    if sum(any(given[name] is not None for name in each) for each in _ACTIONS) > 1:
        raise click.UsageError("give one of --command, --webhook (with --secret) and --callback (with --token)")
    return given


def _secret(hook: hook_pb2.Hook) -> str:
    return hook.callback.token or hook.webhook.secret


def _change(hook: hook_pb2.Hook, *paths: str) -> hook_pb2.Hook:
    request = hook_pb2.UpdateHookRequest(hook=hook, update_mask=FieldMask(paths=paths))
    changed: hook_pb2.Hook = with_gateway(lambda gateway: gateway.ask(gateway.hooks.UpdateHook(request))).hook
    return changed


def _tell_made(hook: hook_pb2.Hook, *, as_json: bool) -> None:
    """Print a hook that was made or changed, and its secret or token if the response has it."""
    secret = _secret(hook)
    if as_json:
        Screen().json(_shape(hook) | {"secret": secret or None})
        return
    click.echo(hook.hook_id)
    if secret:
        click.echo(secret)


def _shape(hook: hook_pb2.Hook) -> shapes.Shape:
    return {
        "kind": "hook",
        "hook_id": hook.hook_id,
        "project_id": hook.project_id or None,
        "all_projects": hook.all_projects,
        "template_ids": list(hook.template_ids),
        "kinds": list(hook.kinds),
        "event": shapes.name(hook_pb2.Hook.Event.Name, hook.event, "EVENT_"),
        "stage": hook.stage or None,
        "command": hook.command or None,
        "url": hook.webhook.url or hook.callback.url or None,
        "calls": {"callback": "grpc", "webhook": "http"}.get(hook.WhichOneof("action") or "", "command"),
        "order": hook.order,
        "timeout_s": hook.timeout.ToNanoseconds() / 1e9,
        "failure_policy": shapes.name(hook_pb2.Hook.FailurePolicy.Name, hook.failure_policy, "FAILURE_POLICY_"),
        "enabled": not hook.disabled,
        "create_time": shapes.time(hook.create_time),
    }


def _row(hook: hook_pb2.Hook) -> tuple[str, ...]:
    shape = _shape(hook)
    scope = ["all" if hook.all_projects else hook.project_id, *hook.template_ids, *hook.kinds]
    return (
        hook.hook_id,
        f"{when(hook)} (disabled)" if hook.disabled else when(hook),
        one_line(", ".join(scope), 40),
        str(hook.order),
        str(shape["failure_policy"]).lower(),
        humanize.age(hook.create_time),
        hook.webhook.url or hook.callback.url or one_line(hook.command, 80),
    )
