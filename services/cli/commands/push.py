"""`boatyard push`."""

import uuid

import click
from boatyard.gateway.v1 import job_pb2, runtime_pb2

from services.cli import options, shapes
from services.cli.clients import Gateway, with_gateway
from services.cli.lookup import get_job_or_execution, get_workspace
from services.cli.screen import Screen
from services.common.errors import NotFound


@click.command("push", short_help="Push a result that a job left and did not push.")
@options.job_or_execution
@click.option("--branch", type=options.TEXT, default="", metavar="NAME", help="The branch (default: the job's).")
@options.as_json
def command(id_: str, branch: str, as_json: bool) -> None:
    """Push the result that a job's last attempt left, without its agent. Of a workspace that is kept: what it has now.

    The job failed or was cancelled, or it succeeded with --no-push; with another --branch, it may have been pushed.

    The job's check runs again, and people are asked again where its policy or a floor says so. A result that lacks work
    is pushed as it is, and without a repository nothing is pushed. Returns at once; `boatyard show` tells its stages.
    """

    async def push(gateway: Gateway) -> job_pb2.Job:
        asked = {"request_id": uuid.uuid4().hex, "branch": branch}  # safe to retry
        try:
            job_id = (await get_job_or_execution(gateway, id_)).job_id
        except NotFound as unknown:
            try:
                workspace_id = (await get_workspace(gateway, id_)).workspace_id
            except NotFound:
                raise unknown from None
            of_workspace = runtime_pb2.PushWorkspaceRequest(workspace_id=workspace_id, **asked)
            return (await gateway.ask(gateway.runtime.PushWorkspace(of_workspace, timeout=600))).job
        return (await gateway.ask(gateway.jobs.PushJob(job_pb2.PushJobRequest(job_id=job_id, **asked)))).job

    job = with_gateway(push)
    text = f"{job.job_id} is queued again, with the result that it has: `boatyard show {job.job_id}` shows its state"
    Screen().answer(shapes.job(job), text, as_json=as_json)
