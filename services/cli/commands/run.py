"""`boatyard run`."""

import asyncio
import sys
from collections.abc import Mapping
from typing import Any

import click
from boatyard.gateway.v1 import job_pb2
from click.core import ParameterSource

from services.cli import exit_codes, flags, options, shapes
from services.cli.clients import Gateway, with_gateway
from services.cli.follower import Follower
from services.cli.job_request import execution_request, find_or_create_repository, new_job, repository_url
from services.cli.job_view import print_end
from services.cli.lookup import get_job, get_snapshot
from services.cli.screen import Screen
from services.common.errors import ServiceError

_EXIT_CODES = {
    job_pb2.Job.STATE_SUCCEEDED: exit_codes.SUCCEEDED,
    job_pb2.Job.STATE_FAILED: exit_codes.FAILED,
    job_pb2.Job.STATE_CANCELLED: exit_codes.CANCELLED,
    job_pb2.Job.STATE_AWAITING_APPROVAL: exit_codes.WAITING,
}
_ALLOWED_WITH_WORKER = ("prompt", "worker", "item", "agent__timeout", "request_id", "no_wait", "detach", "as_json")


@click.command("run", short_help="Run an agent.")
@click.argument("prompt", type=options.TEXT)
@click.option(
    "--worker",
    type=options.TEXT,
    metavar="ID",
    help="The worker that does the job, with --item; the catalogue has all other settings.",
)
@click.option("--item", type=options.TEXT, metavar="ID", help="The work item that the job is for, with --worker.")
@click.option(
    "--repo",
    type=options.TEXT,
    metavar="URL|PATH",
    help="The repository to work on (default: none, and an empty workspace).",
)
@flags.with_options(job_pb2.JobSpec, flags.JOB_FLAGS)
@click.option(
    "--request-id",
    type=options.TEXT,
    metavar="ID",
    help="An id that makes the command safe to repeat: the same id means the same job.",
)
@click.option(
    "--no-wait", is_flag=True, help="Exit with code 5 when the job waits for a person; the job keeps waiting."
)
@click.option("--detach", is_flag=True, help="Print the job's id and return at once.")
@options.as_json
@flags.with_options(job_pb2.JobSpec, flags.RUN_FLAGS[len(flags.JOB_FLAGS) :])
def command(
    *,
    prompt: str,
    worker: str | None,
    item: str | None,
    repo: str | None,
    request_id: str | None,
    no_wait: bool,
    detach: bool,
    as_json: bool,
    **values: Any,  # noqa: ANN401 - what was typed for RUN_FLAGS, by path
) -> int:
    """Have an agent do what PROMPT says (- reads it from standard input), and follow the job to its end.

    The agent works on a copy of the repository, in a sandbox. What it leaves there becomes a commit, which is checked
    by --verify and pushed to a branch of its own.

    What the agent writes, and what its model says, goes to standard output and standard error as it comes; everything
    else goes to standard error. Ctrl-C leaves the job running.

    \b
    Examples:
      boatyard run --repo . --command "my-agent" --verify "make test" "Repair the failing test."
      boatyard run --repo . --engine anthropic --model claude-sonnet-5-5 "Repair the failing test."
      boatyard run --repo https://git.example/team/app.git --ref v2 --detach "Update the changelog."
      boatyard run --from-snapshot ID --command "my-agent" "Go on."
      boatyard run --worker ann --item ticket-7 "Do what the ticket says."
      boatyard run --kind data-processing --file rows.csv=./rows.csv --command "my-agent" "Sum them up."
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    _check_combinations(worker, item, values)
    text = _standard_input() if prompt == "-" else prompt
    request = new_job(text, values, request_id)
    screen = Screen()
    if values["agent__sandbox_tier"] == "none":
        screen.say("WARNING: --sandbox none gives the agent all rights of the account that runs Boatyard", "bold red")

    async def submit(gateway: Gateway) -> job_pb2.Job:
        if worker is not None and item is not None:
            execution = execution_request(worker, item, text, values["agent__timeout"], request_id)
            return await get_job(gateway, (await gateway.ask(gateway.runtime.Execute(execution))).job_id)
        if repo is not None:
            request.spec.repository_id = await find_or_create_repository(gateway, repository_url(repo))
        elif values["snapshot_id"] is not None:
            request.spec.repository_id = (await get_snapshot(gateway, request.spec.snapshot_id)).repository_id
        return (await gateway.ask(gateway.jobs.CreateJob(request))).job

    async def run(gateway: Gateway) -> int:
        job = await submit(gateway)
        if detach:
            _print_submitted(screen, job, as_json=as_json)
            return exit_codes.SUCCEEDED
        return await _follow(gateway, screen, job, wait=not no_wait, as_json=as_json)

    return with_gateway(run)


def _check_combinations(worker: str | None, item: str | None, values: Mapping[str, Any]) -> None:
    """Raise click.UsageError for options that cannot be combined."""
    if (worker is None) != (item is None):
        raise click.UsageError("--worker and --item need each other: give both")
    if worker is not None and (others := _options_beside_worker()):
        raise click.UsageError(
            f"with --worker all settings except --timeout come from the catalogue: leave out {', '.join(others)}"
        )
    if values["snapshot_id"] is not None and values["revision"] is not None:
        raise click.UsageError("--from-snapshot and --ref exclude each other: give one of them")
    if values["delay"] is not None and values["not_before_time"] is not None:
        raise click.UsageError("--delay and --not-before exclude each other: give one of them")


def _options_beside_worker() -> list[str]:
    """Return the options that were given although a worker's job takes their values from the catalogue."""
    context = click.get_current_context()
    return [
        option.opts[0]
        for option in context.command.params
        if option.name not in _ALLOWED_WITH_WORKER
        and context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
    ]


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise click.UsageError("the prompt on standard input must be UTF-8") from error


def _print_submitted(screen: Screen, job: job_pb2.Job, *, as_json: bool) -> None:
    if as_json:
        screen.json(shapes.submitted(job))
        return
    click.echo(job.job_id)
    screen.say(f"`boatyard logs -f {job.job_id}` follows it, `boatyard show {job.job_id}` shows its state")


async def _follow(gateway: Gateway, screen: Screen, job: job_pb2.Job, *, wait: bool, as_json: bool) -> int:
    if as_json:
        screen.json(shapes.submitted(job))
    else:
        screen.say(f"{job.job_id}, execution {shapes.last_execution(job)}")
    try:
        ended = await Follower(gateway, screen, as_json=as_json).to_end(job.job_id, wait=wait)
    except (asyncio.CancelledError, ServiceError):
        screen.say(
            f"stopped following; the job continues: `boatyard logs -f {job.job_id}` follows it again,"
            f" `boatyard cancel {job.job_id}` cancels it",
            style="yellow",
        )
        raise
    if as_json:
        screen.json(shapes.result(ended))
    else:
        print_end(screen, ended)
    return _EXIT_CODES.get(ended.state, exit_codes.FAILED)
