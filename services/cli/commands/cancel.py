"""`boatyard cancel`."""

import click
from boatyard.gateway.v1 import job_pb2, runtime_pb2

from services.cli import options, shapes
from services.cli.clients import Gateway, with_gateway
from services.cli.lookup import get_job_or_execution
from services.cli.screen import Screen


@click.command("cancel", short_help="Cancel a job.")
@options.job_or_execution
@options.as_json
def command(id_: str, as_json: bool) -> None:
    """Cancel a job, or the job of an execution, and everything that runs for it.

    Returns as soon as the cancellation is recorded; the agent gets a few seconds to end by itself. What it has done so
    far is kept: see `boatyard show` and `boatyard diff`.
    """

    async def cancel(gateway: Gateway) -> job_pb2.Job | runtime_pb2.Execution:
        target = await get_job_or_execution(gateway, id_)
        if isinstance(target, job_pb2.Job):
            return (await gateway.ask(gateway.jobs.CancelJob(job_pb2.CancelJobRequest(job_id=id_)))).job
        request = runtime_pb2.CancelExecutionRequest(execution_id=id_)
        return (await gateway.ask(gateway.runtime.CancelExecution(request))).execution

    cancelled = with_gateway(cancel)
    shape = shapes.job(cancelled) if isinstance(cancelled, job_pb2.Job) else shapes.execution(cancelled)
    Screen().answer(
        shape, f"cancelling {id_}: `boatyard show {cancelled.job_id}` shows when it has ended", as_json=as_json
    )
