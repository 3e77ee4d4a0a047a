"""`boatyard workspaces`."""

import asyncio

import click
from boatyard.gateway.v1 import runtime_pb2
from boatyard.workspace.v1 import workspace_pb2

from services.cli import humanize, options, shapes
from services.cli.clients import Gateway, with_gateway
from services.cli.parsing import SPAN, duration
from services.cli.screen import Screen, say_unreachable
from services.common.errors import PermissionDenied

ListedWorkspace = tuple[workspace_pb2.Workspace, str, workspace_pb2.WorkspaceUsage | None]
"""A workspace, its cell, and its disk use if that was measured."""

_MEASURED_WITHIN_S = 60.0
_COLUMNS = ("WORKSPACE", "STATE", "JOB", "DRIVER", "SIZE", "AGE", "GOES IN", "HELD BY", "CELL", "PATH")


@click.command("workspaces", short_help="List workspaces.")
@click.option(
    "-n", "--limit", metavar="N", type=click.IntRange(1, 1000), default=100, show_default=True, help="List at most N."
)
@click.option(
    "--delete",
    type=options.TEXT,
    metavar="ID",
    help="Delete this workspace, with everything in it, instead of listing.",
)
@click.option(
    "--sweep",
    type=SPAN,
    metavar="HOURS",
    help="Delete those whose work ended at least that long ago, instead of listing.",
)
@options.of_project("Only workspaces")
@click.option("--job", type=options.TEXT, metavar="ID", default="", help="Only workspaces of this job.")
@click.option("--worker", type=options.TEXT, metavar="ID", default="", help="Only workspaces of this worker.")
@click.option("--item", type=options.TEXT, metavar="ID", default="", help="Only workspaces for this work item.")
@options.as_json
def command(
    *,
    limit: int,
    delete: str | None,
    sweep: float | None,
    project: str,
    job: str,
    worker: str,
    item: str,
    as_json: bool,
) -> None:
    """List the workspaces, the working copies of jobs, cell by cell, each cell's newest first.

    A job's workspace is removed when the job has succeeded, and kept for a while when it has failed: GOES IN says for
    how long. SIZE is what it takes in addition to the tree that it was made from, for tokens of all projects.
    """
    screen = Screen()
    if delete is not None:
        deletion = runtime_pb2.DeleteWorkspaceRequest(workspace_id=delete)
        with_gateway(lambda gateway: gateway.ask(gateway.runtime.DeleteWorkspace(deletion, timeout=600)))
        if not as_json:
            screen.say(f"{delete} is gone", style="")
        return
    if sweep is not None:
        if job or worker or item:
            raise click.UsageError("--sweep goes by age and --project alone: leave out --job, --worker and --item")
        _sweep(screen, sweep, project, as_json=as_json)
        return
    wanted = runtime_pb2.ListWorkspacesRequest(
        project_id=project, job_id=job, worker_id=worker, work_item_id=item, page_size=limit
    )
    workspaces = with_gateway(lambda gateway: _list(gateway, screen, wanted))
    screen.listing(workspaces, lambda each: shapes.workspace(*each), _COLUMNS, _row, as_json=as_json)


def _sweep(screen: Screen, hours: float, project: str, *, as_json: bool) -> None:
    request = runtime_pb2.SweepWorkspacesRequest(max_age=duration(hours * 3600), project_id=project)
    swept = with_gateway(lambda gateway: gateway.ask(gateway.runtime.SweepWorkspaces(request, timeout=600)))
    say_unreachable(screen, swept.unreachable_cell_ids)
    for workspace_id in swept.workspace_ids:
        screen.answer({"kind": "gone", "workspace_id": workspace_id}, f"{workspace_id} is gone", as_json=as_json)


async def _list(gateway: Gateway, screen: Screen, wanted: runtime_pb2.ListWorkspacesRequest) -> list[ListedWorkspace]:
    listing = gateway.ask(gateway.runtime.ListWorkspaces(wanted))
    listed, measured = await asyncio.gather(listing, _measure(gateway, wanted.page_size))
    say_unreachable(screen, listed.unreachable_cell_ids)
    usages = {usage.workspace_id: usage for cell in measured.cells for usage in cell.workspaces}
    return [
        (workspace, listed.cell_ids[workspace.workspace_id], usages.get(workspace.workspace_id))
        for workspace in listed.workspaces
    ]


async def _measure(gateway: Gateway, limit: int) -> runtime_pb2.ListWorkspaceUsageResponse:
    """Return what workspaces take, which tokens of all projects alone may ask; nothing for other tokens."""
    request = runtime_pb2.ListWorkspaceUsageRequest(page_size=limit)
    try:
        return await gateway.ask(gateway.runtime.ListWorkspaceUsage(request, timeout=_MEASURED_WITHIN_S))
    except PermissionDenied:
        return runtime_pb2.ListWorkspaceUsageResponse()


def _row(listed: ListedWorkspace) -> tuple[str, ...]:
    workspace, cell_id, usage = listed
    return (
        workspace.workspace_id,
        shapes.name(workspace_pb2.Workspace.State.Name, workspace.state),
        workspace.labels.job_id,
        workspace.driver,
        "" if usage is None else humanize.size(usage.bytes),
        humanize.age(workspace.create_time),
        humanize.until(workspace.expire_time) if workspace.HasField("expire_time") else "",
        workspace.held_by,
        cell_id,
        workspace.path,
    )
