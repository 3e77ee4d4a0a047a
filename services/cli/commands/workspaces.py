"""`boatyard workspaces`."""

import asyncio

import click
from boatyard.gateway.v1 import runtime_pb2
from boatyard.workspace.v1 import workspace_pb2

from services.cli import humanize, options, shapes
from services.cli.clients import Gateway, open_gateway
from services.cli.screen import Screen, say_unreachable

Found = list[tuple[workspace_pb2.Workspace, str, workspace_pb2.WorkspaceUsage | None]]
"""Workspaces, the cell of each, and what it takes, where that was measured."""

_MEASURED_WITHIN_S = 60.0
_COLUMNS = ("WORKSPACE", "STATE", "JOB", "DRIVER", "SIZE", "AGE", "GOES IN", "HELD BY", "CELL", "PATH")


@click.command("workspaces", short_help="List working copies.")
@click.option(
    "-n", "--limit", metavar="N", type=click.IntRange(1, 1000), default=100, show_default=True, help="How many at most."
)
@click.option("--delete", type=options.TEXT, metavar="ID", help="Remove this one, and everything in it, instead.")
@options.as_json
def command(limit: int, delete: str | None, as_json: bool) -> None:
    """List the working copies, cell by cell, of each the newest first.

    A job's working copy is removed when the job has succeeded, and kept for a while when it has failed: GOES IN says
    how long. SIZE is what it takes beside the tree that it was made from.
    """
    screen = Screen()

    async def main() -> Found:
        async with open_gateway() as gateway:
            if delete is not None:
                request = runtime_pb2.DeleteWorkspaceRequest(workspace_id=delete)
                await gateway.ask(gateway.runtime.DeleteWorkspace(request, timeout=600))
                return []
            return await _listed(gateway, screen, limit)

    found = asyncio.run(main())
    if as_json:
        for workspace, cell_id, usage in found:
            screen.json(shapes.line(shapes.workspace(workspace, cell_id, usage)))
    elif delete is not None:
        screen.say(f"{delete} is gone", style="")
    else:
        screen.table(_COLUMNS, (_row(*each) for each in found))


async def _listed(gateway: Gateway, screen: Screen, limit: int) -> Found:
    listing = gateway.ask(gateway.runtime.ListWorkspaces(runtime_pb2.ListWorkspacesRequest(page_size=limit)))
    asked = runtime_pb2.UsageOfWorkspacesRequest(page_size=limit)
    measuring = gateway.ask(gateway.runtime.UsageOfWorkspaces(asked, timeout=_MEASURED_WITHIN_S))
    listed, measured = await asyncio.gather(listing, measuring)
    say_unreachable(screen, listed.unreachable_cell_ids)
    usages = {usage.workspace_id: usage for cell in measured.cells for usage in cell.workspaces}
    return [
        (workspace, listed.cell_ids[workspace.workspace_id], usages.get(workspace.workspace_id))
        for workspace in listed.workspaces
    ]


def _row(
    workspace: workspace_pb2.Workspace, cell_id: str, usage: workspace_pb2.WorkspaceUsage | None
) -> tuple[str, ...]:
    return (
        workspace.workspace_id,
        shapes.name(workspace_pb2.Workspace.State.Name, workspace.state),
        workspace.purpose.job_id,
        workspace.driver,
        "" if usage is None else humanize.size(usage.bytes),
        humanize.age(workspace.create_time),
        humanize.until(workspace.expire_time) if workspace.HasField("expire_time") else "",
        workspace.held_by,
        cell_id,
        shapes.workspace_path(workspace) or "",
    )
