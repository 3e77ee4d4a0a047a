"""`boatyard run`."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import click
from boatyard.agent.v1.agent_pb2 import AgentSettings
from boatyard.gateway.v1 import job_pb2, policy_pb2

from services.cli import exit_codes, flags, options, shapes
from services.cli.clients import Gateway, with_gateway
from services.cli.flag_table import RUN
from services.cli.follower import Follower
from services.cli.job_request import check_there, create_job, is_elsewhere, is_url, remove_repository, repository_url
from services.cli.job_view import print_end
from services.cli.local_repository import commit_uncommitted, uncommitted
from services.cli.screen import Screen
from services.cli.streams import OutputLostError
from services.common.errors import ServiceError

_EXIT_CODES = {
    job_pb2.Job.STATE_SUCCEEDED: exit_codes.SUCCEEDED,
    job_pb2.Job.STATE_FAILED: exit_codes.FAILED,
    job_pb2.Job.STATE_CANCELLED: exit_codes.CANCELLED,
    job_pb2.Job.STATE_AWAITING_APPROVAL: exit_codes.WAITING,
}


_NOWHERE = {"REMOTE_NOT_FOUND", "REMOTE_NOT_GIT", "REMOTE_MOVED", "REMOTE_UNREACHABLE", "ADDRESS_NOT_ALLOWED"}
"""Why a job ends when there is no repository at a URL, or none that cells may use."""

_REPOSITORY = flags.GroupedOption(
    ["--repo"],
    group=RUN[0].group,
    type=options.TEXT,
    metavar="URL|PATH",
    help="The repository to work on (default: the item's, or else none, and an empty workspace); one that is not in the"
    " catalogue is added.",
)


@click.command(
    "run",
    cls=flags.GroupedCommand,
    params=[_REPOSITORY, *flags.options_of(job_pb2.JobSpec, RUN)],
    short_help="Run an agent.",
)
@click.argument("prompt", type=options.TEXT)
@click.option(
    "--request-id",
    type=options.TEXT,
    metavar="ID",
    help="An id that makes the command safe to repeat: the same id means the same job.",
)
@click.option(
    "--no-wait", is_flag=True, help="Exit with code 5 when the job waits for a person; the job keeps waiting."
)
@click.option(
    "--include-dirty",
    is_flag=True,
    help="Start from --repo's files as they are: a commit, on no branch, of what is not committed yet.",
)
@click.option("--detach", is_flag=True, help="Print the job's id and return at once.")
@options.raw
@options.as_json
def command(
    *,
    prompt: str,
    repo: str | None,
    request_id: str | None,
    no_wait: bool,
    include_dirty: bool,
    detach: bool,
    raw: bool,
    as_json: bool,
    **values: Any,  # noqa: ANN401 - what was typed for the rows of RUN
) -> int:
    """Have an agent do what PROMPT says (- reads it from standard input), and follow the job to its end.

    The agent works on a copy of the repository, in a sandbox. What it leaves there becomes a commit, which is checked
    by --verify and pushed to a branch of its own.

    What the agent writes, and what its model says, goes to standard output and standard error as it comes; everything
    else goes to standard error. On a terminal, only text and colours of it are shown, unless --raw is given. Ctrl-C
    leaves the job running.

    \b
    Examples:
      boatyard run --repo . --command "my-agent" --verify "make test" "Mend it."
      boatyard run --repo . --engine anthropic --max-turns 30 "Mend the test."
      boatyard run --repo https://git.example/app.git --ref v2 --detach "Tidy up."
      boatyard run --from-snapshot ID --command "my-agent" "Go on."
      boatyard run --worker ann --item ticket-7 "Do what the ticket says."
      boatyard run --file rows.csv=./rows.csv --command "my-agent" "Sum them up."
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    if values["from_snapshot"] is not None and values["ref"] is not None:
        raise click.UsageError("--from-snapshot and --ref exclude each other: give one of them")
    if values["repository"] is not None and repo is not None:
        raise click.UsageError("--repo and --repository exclude each other: give one of them")
    # Both are set even if empty: a request id belongs to one message, whichever version of the command makes it.
    spec = job_pb2.JobSpec(agent=AgentSettings(), policy=policy_pb2.Policy())
    flags.fill(spec, RUN, values)
    spec.prompt = _standard_input() if prompt == "-" else prompt
    screen = Screen(raw=raw)
    if values["sandbox"] == "none":
        screen.say("WARNING: --sandbox none gives the agent all rights of the account that runs Boatyard", "bold red")

    url = None if repo is None else repository_url(repo)
    if include_dirty and (url is None or is_url(url) or spec.revision or spec.snapshot_id):
        raise click.UsageError("--include-dirty is for a --repo on this machine, without --ref and --from-snapshot")

    async def run(gateway: Gateway) -> int:
        if url is not None:
            check_there(url, gateway.address)
            if not is_url(url) and not is_elsewhere(gateway.address):
                _take_uncommitted(screen, spec, Path(url), include=include_dirty)
        job, added = await create_job(gateway, spec, url, request_id)
        if detach:
            _print_submitted(screen, job, as_json=as_json)
            return exit_codes.SUCCEEDED
        ended = await _follow(gateway, screen, job, wait=not no_wait, as_json=as_json)
        if added and ended.reason in _NOWHERE and await remove_repository(gateway, added):
            text = f"the repository that was added for it, {url}, is removed again: run the job anew"
            screen.say(f"{text}, `boatyard retry` and `boatyard push` have nothing to begin from", "yellow")
        return _EXIT_CODES.get(ended.state, exit_codes.FAILED)

    return with_gateway(run)


def _take_uncommitted(screen: Screen, spec: job_pb2.JobSpec, top: Path, *, include: bool) -> None:
    """Say what of a working tree the job would lack, or have it start from a commit of all that."""
    count = uncommitted(top)
    if count and include:
        spec.revision = commit_uncommitted(top)
    elif count and not spec.revision and not spec.snapshot_id:
        screen.say(
            f"what is not committed in {top} ({count} {'path' if count == 1 else 'paths'}) is not in the job;"
            " --include-dirty takes it along",
            "yellow",
        )


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise click.UsageError("the prompt on standard input must be UTF-8") from error
    except OSError as error:
        raise click.UsageError(f"the prompt on standard input cannot be read: {error.strerror}") from error


def _print_submitted(screen: Screen, job: job_pb2.Job, *, as_json: bool) -> None:
    if as_json:
        screen.json(shapes.submitted(job))
        return
    screen.value(job.job_id)
    screen.say(f"`boatyard logs -f {job.job_id}` follows it, `boatyard show {job.job_id}` shows its state")


async def _follow(gateway: Gateway, screen: Screen, job: job_pb2.Job, *, wait: bool, as_json: bool) -> job_pb2.Job:
    if as_json:
        screen.json(shapes.submitted(job))
    else:
        screen.say(f"{job.job_id}, execution {shapes.last_execution(job)}")
    try:
        ended = await Follower(gateway, screen, as_json=as_json).to_end(job.job_id, wait=wait)
    except (asyncio.CancelledError, ServiceError, OutputLostError):
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
    return ended
