"""`boatyard cancel`."""

import click
from boatyard.gateway.v1 import job_pb2, runtime_pb2

from services.cli import options, shapes
from services.cli.clients import Gateway, with_gateway
from services.cli.lookup import get_job_or_execution
from services.cli.screen import Screen


@click.command("cancel", short_help="End a job.")
@options.job_or_execution
@options.as_json
def command(id_: str, as_json: bool) -> None:
    """End a job, or the job of an execution, and all that runs for it.

    Returns when the order is given; the agent has a few seconds to end by itself. What it has done so far is kept, and
    `boatyard show` and `boatyard diff` show it.
    """

    async def cancelled(gateway: Gateway) -> job_pb2.Job | runtime_pb2.Execution:
        found = await get_job_or_execution(gateway, id_)
        if isinstance(found, job_pb2.Job):
            return (await gateway.ask(gateway.jobs.CancelJob(job_pb2.CancelJobRequest(job_id=id_)))).job
        request = runtime_pb2.CancelExecutionRequest(execution_id=id_)
        return (await gateway.ask(gateway.runtime.CancelExecution(request))).execution

    asked = with_gateway(cancelled)
    shape = shapes.job(asked) if isinstance(asked, job_pb2.Job) else shapes.execution(asked)
    Screen().answer(shape, f"{id_} is being ended: `boatyard show {asked.job_id}` says when it is", as_json=as_json)
