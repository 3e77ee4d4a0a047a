"""`boatyard hook`."""

import uuid
from typing import Any

import click
from boatyard.gateway.v1 import hook_pb2
from click.core import ParameterSource
from google.protobuf.field_mask_pb2 import FieldMask

from services.cli import humanize, options, shapes
from services.cli.clients import with_gateway
from services.cli.flag_table import PROJECT
from services.cli.flags import Flag, fill, options_of
from services.cli.hook_calls import calls, test, when
from services.cli.parsing import TEXT_OR_FILE
from services.cli.screen import Screen, first_line

_FLAGS = (
    Flag("--event", "event", "When the hook is called.", is_fixed=True),
    Flag("--stage", "stage", "The stage, such as push, for the events before and after.", "NAME", is_fixed=True),
    Flag("--command", "command", "A line for /bin/sh, run in a sandbox, with the job on its standard input.", "LINE"),
    Flag("--webhook", "webhook.url", "The URL of a server that gets a signed POST.", "URL"),
    Flag(
        "--secret",
        "webhook.secret",
        "The webhook's secret (default: one is made, and printed).",
        "@FILE|whsec_…",
        TEXT_OR_FILE,
    ),
    Flag("--callback", "callback.url", "The URL of a gRPC server of yours.", "URL"),
    Flag(
        "--token",
        "callback.token",
        "The callback's token (default: one is made, and printed).",
        "@FILE|TEXT",
        TEXT_OR_FILE,
    ),
    Flag("--order", "order", "Hooks with a lower number are called first (default: 0).", "N"),
    Flag(
        "--timeout", "timeout", "Seconds that the command, or each try to call the server, may take (default: 30).", "S"
    ),
    Flag(
        "--on-failure",
        "failure_policy",
        "What happens to the job when the hook fails (default: fail for hooks called before, else ignore).",
    ),
    Flag("--on-cancel", "on_cancel", "For the event error: call it also for jobs that are cancelled."),
    PROJECT,
    Flag("--all-projects", "all_projects", "Call it for the jobs of every project.", is_fixed=True),
    Flag("--template", "template_ids", "Call it only for jobs of this template; may be repeated.", "ID"),
    Flag("--kind", "kinds", "Call it only for jobs of this kind; may be repeated.", "KIND"),
)
_CHANGEABLE = [flag for flag in _FLAGS if not flag.is_fixed]
_CLEARABLE = {"template": "template_ids", "kind": "kinds", "order": "order", "timeout": "timeout"}
_COLUMNS = ("HOOK", "WHEN", "FOR", "ORDER", "ON FAILURE", "AGE", "CALLS")


@click.group("hook", short_help="Manage hooks.")
def command() -> None:
    """Manage hooks: commands and servers called before and after jobs, around their stages, and when they fail.

    Every command takes --json.
    """


def _create(*, as_json: bool, **values: Any) -> None:  # noqa: ANN401 - text, texts or a bool
    """Create a hook and print its id; for a server also its secret or token, which is never shown again.

    A pre hook, or one before a stage, may veto the job: a command with an exit code other than 0, a webhook with the
    answer {"allow": false, "reason": "…"}. It may also add to the agent's prompt and label the job, with the answer
    {"prompt_addition": "…", "labels": {"…": "…"}}; a command prints it as the last line of its output. Webhook calls
    are signed as Standard Webhooks; a callback server implements boatyard.hook.v1.HookCallbackService.

    \b
    Examples:
      boatyard hook create --event pre --command "grep -q approved"
      boatyard hook create --event before --stage push --kind task --command ./may-publish
      boatyard hook create --event post --webhook https://ci.example/boatyard --all-projects
      boatyard hook create --event pre --callback https://policy.example:7490 --token @token
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    hook = hook_pb2.Hook()
    if values["all_projects"] and _is_from_environment("project"):
        values["project"] = None
    fill(hook, _FLAGS, values)
    if hook.WhichOneof("action") is None:
        raise click.UsageError("give --command, --webhook or --callback")
    request = hook_pb2.CreateHookRequest(request_id=uuid.uuid4().hex, hook=hook)  # safe to retry
    _print_changed(with_gateway(lambda gateway: gateway.ask(gateway.hooks.CreateHook(request))).hook, as_json=as_json)


@command.command("list")
@options.of_project("Only hooks for jobs")
@options.as_json
def show_all(project: str, as_json: bool) -> None:
    """List hooks in the order in which they are called."""
    request = hook_pb2.ListHooksRequest(project_id=project)
    hooks = with_gateway(lambda gateway: gateway.list_all(gateway.hooks.ListHooks, request))
    Screen().listing(hooks, _shape, _COLUMNS, _row, as_json=as_json, cut_last=True)


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
            Screen().field(label, str(text))


def _update(*, id_: str, clear: tuple[str, ...], as_json: bool, **values: Any) -> None:  # noqa: ANN401 - see above
    """Change the given settings of a hook. Jobs that have already started call it as it was."""
    hook = hook_pb2.Hook(hook_id=id_)
    paths = [*fill(hook, _CHANGEABLE, values), *(_CLEARABLE[name] for name in clear)]
    if not paths:
        raise click.UsageError("say what to change: see --help")
    _print_changed(_change(hook, *paths), as_json=as_json)


@command.command("enable")
@click.argument("id_", metavar="ID", type=options.TEXT)
@options.as_json
def enable(id_: str, as_json: bool) -> None:
    """Enable a hook that was disabled."""
    _print_changed(_change(hook_pb2.Hook(hook_id=id_), "disabled"), as_json=as_json)


@command.command("disable")
@click.argument("id_", metavar="ID", type=options.TEXT)
@options.as_json
def disable(id_: str, as_json: bool) -> None:
    """Disable a hook until it is enabled again. Jobs that have already started still call it."""
    _print_changed(_change(hook_pb2.Hook(hook_id=id_, disabled=True), "disabled"), as_json=as_json)


@command.command("delete")
@click.argument("id_", metavar="ID", type=options.TEXT)
@options.as_json
def delete(id_: str, as_json: bool) -> None:
    """Delete a hook. Jobs that have already started still call it."""
    with_gateway(lambda gateway: gateway.ask(gateway.hooks.DeleteHook(hook_pb2.DeleteHookRequest(hook_id=id_))))
    if not as_json:
        Screen().say(f"{id_} deleted", style="")


command.add_command(calls)
command.add_command(test)


def _add_command(name: str, run: Any, *parameters: click.Parameter) -> None:  # noqa: ANN401 - a function of options
    command.add_command(options.as_json(click.Command(name, callback=run, help=run.__doc__, params=list(parameters))))


_add_command("create", _create, *options_of(hook_pb2.Hook, _FLAGS))
_add_command(
    "update",
    _update,
    click.Argument(["id_"], metavar="ID", type=options.TEXT),
    *options_of(hook_pb2.Hook, _CHANGEABLE),
    click.Option(
        ["--clear"],
        type=click.Choice(list(_CLEARABLE)),
        multiple=True,
        help="Reset this setting to its default; may be repeated.",
    ),
)


def _is_from_environment(option: str) -> bool:
    return click.get_current_context().get_parameter_source(option) is ParameterSource.ENVIRONMENT


def _secret(hook: hook_pb2.Hook) -> str:
    return hook.callback.token or hook.webhook.secret


def _change(hook: hook_pb2.Hook, *paths: str) -> hook_pb2.Hook:
    request = hook_pb2.UpdateHookRequest(hook=hook, update_mask=FieldMask(paths=paths))
    changed: hook_pb2.Hook = with_gateway(lambda gateway: gateway.ask(gateway.hooks.UpdateHook(request))).hook
    return changed


def _print_changed(hook: hook_pb2.Hook, *, as_json: bool) -> None:
    """Print a hook that was made or changed, and its secret or token if the response has it."""
    screen, secret = Screen(), _secret(hook)
    if as_json:
        screen.json(_shape(hook) | {"secret": secret or None})
        return
    screen.value(hook.hook_id)
    if secret:
        screen.say("its secret is not shown again:", style="")
        screen.value(secret)


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
        "on_cancel": hook.on_cancel,
        "enabled": not hook.disabled,
        "create_time": shapes.time(hook.create_time),
    }


def _row(hook: hook_pb2.Hook) -> tuple[str, ...]:
    shape = _shape(hook)
    scope = ["all" if hook.all_projects else hook.project_id, *hook.template_ids, *hook.kinds]
    return (
        hook.hook_id,
        f"{when(hook)} (disabled)" if hook.disabled else when(hook),
        first_line(", ".join(scope), 40),
        str(hook.order),
        str(shape["failure_policy"]).lower(),
        humanize.age(hook.create_time),
        hook.webhook.url or hook.callback.url or first_line(hook.command, 80),
    )
