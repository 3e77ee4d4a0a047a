"""`boatyard run`."""

import asyncio
import sys
from typing import Any

import click
from boatyard.execution.v1.sandbox_pb2 import SandboxTier
from boatyard.gateway.v1 import job_pb2
from click.core import ParameterSource

from services.cli import exit_codes, flags, options, shapes
from services.cli.clients import Gateway, open_gateway
from services.cli.fields import choices
from services.cli.follower import Follower
from services.cli.inputs import Input
from services.cli.job_request import (
    execution,
    find_or_create_repository,
    get_job,
    get_snapshot,
    new_job,
    repository_url,
)
from services.cli.job_view import print_end
from services.cli.screen import Screen
from services.common.errors import ServiceError

_EXIT_CODES = {
    job_pb2.Job.STATE_SUCCEEDED: exit_codes.SUCCEEDED,
    job_pb2.Job.STATE_FAILED: exit_codes.FAILED,
    job_pb2.Job.STATE_CANCELLED: exit_codes.CANCELLED,
    job_pb2.Job.STATE_AWAITING_APPROVAL: exit_codes.WAITING,
}
_BESIDE_WORKER = ("prompt", "worker", "item", "timeout", "request_id", "no_wait", "detach", "as_json")


@click.command("run", short_help="Run an agent.")
@click.argument("prompt", type=options.TEXT)
@click.option(
    "--worker",
    type=options.TEXT,
    metavar="ID",
    help="The worker that does it, with --item; the catalogue has the rest.",
)
@click.option("--item", type=options.TEXT, metavar="ID", help="The work item that it is for, with --worker.")
@click.option(
    "--repo",
    type=options.TEXT,
    metavar="URL|PATH",
    help="The repository to work on. Without one the workspace is empty.",
)
@click.option("--ref", metavar="REF", help="The branch, tag or commit to start from (default: the remote's branch).")
@click.option(
    "--from-snapshot",
    type=options.TEXT,
    metavar="ID",
    help="Start from what another job left (see `boatyard snapshots`), in its repository.",
)
@click.option(
    "--engine",
    type=options.TEXT,
    metavar="NAME",
    help="What drives the agent: command (default) or anthropic.",
)
@click.option(
    "--command",
    type=options.TEXT,
    metavar="LINE",
    help="The agent: a line for /bin/sh, which finds the prompt on its input.",
)
@click.option(
    "--model",
    type=options.TEXT,
    metavar="NAME",
    help="The model of engine anthropic (default: the gateway's ANTHROPIC_MODEL).",
)
@click.option(
    "--max-turns",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many answers the model of engine anthropic may give (default: 50).",
)
@click.option(
    "--verify",
    type=options.TEXT,
    metavar="LINE",
    help="A line for /bin/sh that checks the result; nothing is pushed unless it exits with 0.",
)
@click.option(
    "--kind", type=options.TEXT, metavar="NAME", help="The kind of job: see `boatyard kinds` (default: task)."
)
@click.option(
    "--file",
    "files",
    type=options.TEXT,
    metavar="NAME=PATH",
    multiple=True,
    help="A file to work on, .boatyard/input/NAME for the agent; may be repeated.",
)
@click.option(
    "--data",
    type=options.TEXT,
    metavar="JSON|@FILE",
    help="A JSON object to work on: the agent finds it in the file that BOATYARD_INPUT names.",
)
@click.option(
    "--label", "labels", type=options.TEXT, metavar="KEY=VALUE", multiple=True, help="A label; may be repeated."
)
@click.option(
    "--delay",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="Begin so many seconds from now at the earliest.",
)
@click.option(
    "--not-before",
    type=options.TEXT,
    metavar="TIME",
    help="Begin then at the earliest, such as 2030-01-31T08:00+01:00.",
)
@click.option("--branch", metavar="NAME", help="The branch of the result (default: boatyard/<job id>).")
@click.option("--no-push", is_flag=True, help="Keep the result on this machine.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="Seconds that the agent may take (default: 3600).",
)
@click.option(
    "--sandbox",
    type=click.Choice(list(choices(SandboxTier.DESCRIPTOR))),
    help="How strongly the agent is kept apart; none gives it all your rights (default: bubblewrap).",
)
@click.option(
    "--request-id", type=options.TEXT, metavar="ID", help="Makes the call safe to repeat: the same id is the same job."
)
@click.option(
    "--no-wait", is_flag=True, help="Return with exit code 5 when the job waits for a person; it goes on waiting."
)
@click.option("--detach", is_flag=True, help="Print the job's id and return at once.")
@options.as_json
def command(
    *,
    prompt: str,
    worker: str | None,
    item: str | None,
    repo: str | None,
    ref: str | None,
    from_snapshot: str | None,
    engine: str | None,
    command: str | None,
    model: str | None,
    max_turns: int | None,
    verify: str | None,
    kind: str | None,
    files: tuple[str, ...],
    data: str | None,
    labels: tuple[str, ...],
    delay: float | None,
    not_before: str | None,
    branch: str | None,
    no_push: bool,
    timeout: float | None,
    sandbox: str | None,
    request_id: str | None,
    no_wait: bool,
    detach: bool,
    as_json: bool,
    **limits: Any,  # noqa: ANN401 - text, texts or a bool: see `flags`
) -> int:
    """Have an agent do what PROMPT says (- reads it from standard input), and follow it to its end.

    The agent works on a copy of the repository, in a sandbox. What it leaves there becomes a commit, which is checked
    by --verify, and pushed to a branch of its own.

    What the agent writes, and what its model says, goes to standard output and standard error as it comes; all else to
    standard error. Ctrl-C leaves the job running.

    \b
    Examples:
      boatyard run --repo . --command "my-agent" --verify "make test" "Repair the failing test."
      boatyard run --repo . --engine anthropic --model claude-sonnet-5-5 "Repair the failing test."
      boatyard run --repo https://git.example/team/app.git --ref v2 --detach "Update the changelog."
      boatyard run --from-snapshot ID --command "my-agent" "Go on."
      boatyard run --worker ann --item ticket-7 "Do what the ticket says."
      boatyard run --kind data-processing --file rows.csv=./rows.csv --command "my-agent" "Sum them up."
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    if (worker is None) != (item is None):
        raise click.UsageError("--worker and --item go together: give both")
    if worker is not None and (others := _given_beside_worker()):
        raise click.UsageError(
            f"with --worker the catalogue has the job's settings, but for --timeout: leave out {', '.join(others)}"
        )
    if from_snapshot is not None and ref is not None:
        raise click.UsageError("--from-snapshot takes the place of --ref: give one of them")
    if delay is not None and not_before is not None:
        raise click.UsageError("--delay and --not-before say the same: give one of them")
    text = _standard_input() if prompt == "-" else prompt
    given = Input.read(kind=kind, files=files, data=data, labels=labels, delay=delay, not_before=not_before)
    screen = Screen()
    if sandbox == "none":
        screen.say(
            "WARNING: --sandbox none: the agent has all the rights of the account that runs Boatyard", "bold red"
        )

    async def main() -> int:
        async with open_gateway() as gateway:
            if worker is not None and item is not None:
                wish = execution(
                    worker_id=worker, work_item_id=item, prompt=text, timeout_s=timeout, request_id=request_id
                )
                job = await get_job(gateway, (await gateway.ask(gateway.runtime.Execute(wish))).job_id)
            else:
                repository_id = "" if repo is None else await find_or_create_repository(gateway, repository_url(repo))
                if from_snapshot is not None and repo is None:
                    repository_id = (await get_snapshot(gateway, from_snapshot)).repository_id
                request = new_job(
                    prompt=text,
                    repository_id=repository_id,
                    revision=ref,
                    snapshot_id=from_snapshot,
                    branch=branch,
                    engine=engine,
                    command=command,
                    model=model,
                    max_turns=max_turns,
                    verify=verify,
                    sandbox=sandbox,
                    timeout_s=timeout,
                    push=not no_push,
                    request_id=request_id,
                    limits=limits,
                )
                given.fill(request.spec)
                job = (await gateway.ask(gateway.jobs.CreateJob(request))).job
            if detach:
                _tell_submitted(screen, job, as_json=as_json)
                return exit_codes.SUCCEEDED
            return await _follow(gateway, screen, job, wait=not no_wait, as_json=as_json)

    return asyncio.run(main())


command.params += flags.options_of(job_pb2.JobSpec, (*flags.LIMIT_FLAGS, *flags.RETRY_FLAGS, *flags.CHECKPOINT_FLAGS))


def _given_beside_worker() -> list[str]:
    """Return the options that were given, and say what the catalogue says of a worker and its work item."""
    context = click.get_current_context()
    return [
        option.opts[0]
        for option in context.command.params
        if option.name not in _BESIDE_WORKER
        and context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
    ]


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise click.UsageError("standard input, the prompt, must be UTF-8") from error


def _tell_submitted(screen: Screen, job: job_pb2.Job, *, as_json: bool) -> None:
    if as_json:
        screen.json(shapes.line(shapes.submitted(job)))
        return
    click.echo(job.job_id)
    screen.say(f"`boatyard logs -f {job.job_id}` follows it, `boatyard show {job.job_id}` says how it stands")


async def _follow(gateway: Gateway, screen: Screen, job: job_pb2.Job, *, wait: bool, as_json: bool) -> int:
    if as_json:
        screen.json(shapes.line(shapes.submitted(job)))
    else:
        screen.say(f"{job.job_id}, execution {shapes.last_execution(job)}")
    try:
        ended = await Follower(gateway, screen, as_json=as_json).to_end(job.job_id, wait=wait)
    except (asyncio.CancelledError, ServiceError):
        screen.say(
            f"left; the job goes on: `boatyard logs -f {job.job_id}` follows it again,"
            f" `boatyard cancel {job.job_id}` ends it",
            style="yellow",
        )
        raise
    if as_json:
        screen.json(shapes.line(shapes.result(ended)))
    else:
        print_end(screen, ended)
    return _EXIT_CODES.get(ended.state, exit_codes.FAILED)
