"""`boatyard ps`."""

import asyncio

import click
from boatyard.gateway.v1 import job_pb2

from services.cli import options, shapes, words
from services.cli.clients import gateway
from services.cli.screen import Screen, one_line

_COLUMNS = ("JOB", "STATE", "REASON", "AGE", "TOOK", "BRANCH", "PROMPT")
_LIVE = (job_pb2.Job.STATE_PENDING, job_pb2.Job.STATE_RUNNING, job_pb2.Job.STATE_AWAITING_APPROVAL)


@click.command("ps", short_help="List jobs.")
@click.option("--live", is_flag=True, help="Only jobs that have not ended.")
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many at most.")
@options.as_json
def command(live: bool, limit: int, as_json: bool) -> None:
    """List jobs, the newest first."""
    screen = Screen()

    async def main() -> list[job_pb2.Job]:
        async with gateway() as way:
            request = job_pb2.ListJobsRequest(filter=job_pb2.JobFilter(states=_LIVE if live else ()), page_size=limit)
            return list((await way.ask(way.jobs.ListJobs(request))).jobs)

    jobs = asyncio.run(main())
    if as_json:
        for job in jobs:
            screen.json(shapes.line(shapes.job(job)))
    else:
        screen.table(_COLUMNS, map(_row, jobs), cut_last=True)


def _row(job: job_pb2.Job) -> tuple[str, ...]:
    took = shapes.duration_ms(job)
    return (
        job.job_id,
        shapes.job_state(job),
        job.reason,
        words.age(job.create_time),
        "" if took is None else words.duration(took),
        _branch(job),
        one_line(job.spec.prompt, 80),
    )


def _branch(job: job_pb2.Job) -> str:
    """Return the branch where it has a name of its own, which the job's id does not say already."""
    branch = shapes.text(job.output.branch) or shapes.text(job.spec.branch) or ""
    return "" if branch == f"boatyard/{job.job_id}" else branch
