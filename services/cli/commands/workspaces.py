"""`boatyard workspaces`."""

import asyncio

import click
from boatyard.gateway.v1 import runtime_pb2
from boatyard.workspace.v1 import workspace_pb2

from services.cli import humanize, options, shapes
from services.cli.clients import Gateway, with_gateway
from services.cli.screen import Screen, say_unreachable
from services.common.errors import NotFound

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
@options.as_json
def command(limit: int, delete: str | None, as_json: bool) -> None:
    """List the workspaces, the working copies of jobs, cell by cell, each cell's newest first.

    A job's workspace is removed when the job has succeeded, and kept for a while when it has failed: GOES IN says for
    how long. SIZE is what it takes in addition to the tree that it was made from.
    """
    screen = Screen()
    if delete is not None:
        with_gateway(lambda gateway: _delete(gateway, delete))
        if not as_json:
            screen.say(f"{delete} is gone", style="")
        return
    workspaces = with_gateway(lambda gateway: _list(gateway, screen, limit))
    screen.listing(workspaces, lambda each: shapes.workspace(*each), _COLUMNS, _row, as_json=as_json)


async def _delete(gateway: Gateway, workspace_id: str) -> None:
    """Delete a workspace. Raises NotFound: the RPC, which may be repeated, has no word for what was never there."""
    if not await _may_exist(gateway, workspace_id):
        raise NotFound("workspace", workspace_id, because="`boatyard workspaces` lists those that there are")
    deletion = runtime_pb2.DeleteWorkspaceRequest(workspace_id=workspace_id)
    await gateway.ask(gateway.runtime.DeleteWorkspace(deletion, timeout=600))


async def _may_exist(gateway: Gateway, workspace_id: str) -> bool:
    """Return True when a cell lists the workspace, or does not answer."""
    request = runtime_pb2.ListWorkspacesRequest(page_size=1000)
    while True:
        listed = await gateway.ask(gateway.runtime.ListWorkspaces(request))
        if listed.unreachable_cell_ids or workspace_id in listed.cell_ids:
            return True
        request.page_token = listed.next_page_token
        if not request.page_token:
            return False


async def _list(gateway: Gateway, screen: Screen, limit: int) -> list[ListedWorkspace]:
    listing = gateway.ask(gateway.runtime.ListWorkspaces(runtime_pb2.ListWorkspacesRequest(page_size=limit)))
    usage_request = runtime_pb2.ListWorkspaceUsageRequest(page_size=limit)
    measuring = gateway.ask(gateway.runtime.ListWorkspaceUsage(usage_request, timeout=_MEASURED_WITHIN_S))
    listed, measured = await asyncio.gather(listing, measuring)
    say_unreachable(screen, listed.unreachable_cell_ids)
    usages = {usage.workspace_id: usage for cell in measured.cells for usage in cell.workspaces}
    return [
        (workspace, listed.cell_ids[workspace.workspace_id], usages.get(workspace.workspace_id))
        for workspace in listed.workspaces
    ]


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
        shapes.workspace_path(workspace) or "",
    )
