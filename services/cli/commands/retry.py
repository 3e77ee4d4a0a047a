"""`boatyard retry`."""

import uuid

import click
from boatyard.gateway.v1 import budget_pb2, job_pb2

from services.cli import options, shapes
from services.cli.budgets import AMOUNTS
from services.cli.clients import Gateway, with_gateway
from services.cli.lookup import get_job_or_execution
from services.cli.parsing import BUDGET
from services.cli.screen import Screen


@click.command("retry", short_help="Retry a job.")
@options.job_or_execution
@click.option(
    "--from-snapshot", is_flag=True, help="Continue from what the last attempt left, instead of starting over."
)
@click.option(
    "--budget",
    type=BUDGET,
    metavar=AMOUNTS,
    help="What the job may spend on models, what it has spent included. It continues from what the last attempt left,"
    " if that is kept.",
)
@options.as_json
def command(id_: str, from_snapshot: bool, budget: budget_pb2.BudgetLimits | None, as_json: bool) -> None:
    """Put a job that failed or was cancelled back into the queue.

    It stays the same job, with the same settings but for --budget, and a new execution. Returns at once; `boatyard logs
    -f` follows it.
    """

    async def retry(gateway: Gateway) -> job_pb2.Job:
        job_id = (await get_job_or_execution(gateway, id_)).job_id
        request = job_pb2.RetryJobRequest(
            request_id=uuid.uuid4().hex,  # safe to retry
            job_id=job_id,
            from_snapshot=from_snapshot,
            budget=budget,
        )
        return (await gateway.ask(gateway.jobs.RetryJob(request))).job

    job = with_gateway(retry)
    text = f"{job.job_id} is queued again: `boatyard logs -f {job.execution_ids[-1]}` follows it"
    Screen().answer(shapes.job(job), text, as_json=as_json)
