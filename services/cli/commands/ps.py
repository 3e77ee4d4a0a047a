"""`boatyard ps`."""

from contextlib import aclosing

import click
from boatyard.gateway.v1 import job_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from services.cli import humanize, options, selecting, shapes
from services.cli.clients import Gateway, with_gateway
from services.cli.fields import choices
from services.cli.parsing import MOMENT
from services.cli.resumed_streams import Outage, all_job_changes
from services.cli.screen import Screen, first_line

COLUMNS = ("JOB", "STATE", "REASON", "AGE", "TOOK", "COST", "BRANCH", "PROMPT")
_LIVE = (job_pb2.Job.STATE_PENDING, job_pb2.Job.STATE_RUNNING, job_pb2.Job.STATE_AWAITING_APPROVAL)
_STATES = choices(job_pb2.Job.DESCRIPTOR.enum_types_by_name["State"])


@click.command("ps", short_help="List jobs.")
@click.option("--live", is_flag=True, help="Only jobs that have not ended.")
@click.option(
    "--state",
    "states",
    type=click.Choice(list(_STATES)),
    multiple=True,
    help="Only jobs in this state; may be repeated.",
)
@click.option(
    "--kind", "kinds", type=options.TEXT, metavar="NAME", multiple=True, help="Only jobs of this kind; may be repeated."
)
@options.of_project("Only jobs")
@click.option("--worker", type=options.TEXT, metavar="ID", help="Only jobs of this worker.")
@click.option("--item", type=options.TEXT, metavar="ID", help="Only jobs for this work item.")
@selecting.by_label
@click.option(
    "--since",
    type=MOMENT,
    metavar="TIME",
    help="Only jobs admitted at this time or later, such as 2030-01-31T08:00+01:00.",
)
@click.option("--until", type=MOMENT, metavar="TIME", help="Only jobs admitted before this time.")
@click.option(
    "-n", "--limit", metavar="N", type=click.IntRange(1), default=20, show_default=True, help="List at most N."
)
@click.option("--watch", is_flag=True, help="List all matching jobs, then print a line for every change, until Ctrl-C.")
@options.as_json
def command(
    *,
    live: bool,
    states: tuple[str, ...],
    kinds: tuple[str, ...],
    project: str,
    worker: str | None,
    item: str | None,
    labels: tuple[job_pb2.LabelSelector, ...],
    since: Timestamp | None,
    until: Timestamp | None,
    limit: int,
    watch: bool,
    as_json: bool,
) -> None:
    """List the jobs that match all options, newest first.

    REASON is why a job failed, or what a PENDING one waits for; `boatyard show JOB` says it in full.
    """
    if live and states:
        raise click.UsageError("--live and --state exclude each other: give one of them")
    job_filter = job_pb2.JobFilter(
        project_id=project,
        states=_LIVE
        if live
        else [job_pb2.Job.State.Value(f"STATE_{name.upper().replace('-', '_')}") for name in states],
        kinds=kinds,
        worker_id=worker or "",
        work_item_id=item or "",
        labels=labels,
        created_after_time=since,
        created_before_time=until,
    )
    screen = Screen()

    async def jobs(gateway: Gateway) -> list[job_pb2.Job]:
        if watch:
            await _watch(gateway, screen, job_filter, as_json=as_json)
        return await gateway.list_all(gateway.jobs.ListJobs, job_pb2.ListJobsRequest(filter=job_filter), limit)

    screen.listing(with_gateway(jobs), shapes.job, COLUMNS, row_of, as_json=as_json, cut_last=True)


async def _watch(gateway: Gateway, screen: Screen, job_filter: job_pb2.JobFilter, *, as_json: bool) -> None:
    """Show jobs and their changes until Ctrl-C."""
    async with aclosing(all_job_changes(gateway, job_filter, Outage(screen.say))) as changes:
        async for job in changes:
            if as_json:
                screen.json(shapes.job(job))
            else:
                screen.row(row_of(job))


def row_of(job: job_pb2.Job) -> tuple[str, ...]:
    """Return a line of the list: a value for each of COLUMNS."""
    took = shapes.duration_ms(job)
    return (
        job.job_id,
        shapes.job_state(job),
        job.reason or shapes.waits_for(job),
        humanize.age(job.create_time),
        "" if took is None else humanize.duration(took),
        humanize.cost(*(each.usage for each in job.usage)) if job.usage else "",
        job.output.branch or job.spec.branch,
        first_line(job.spec.prompt, 80),
    )
