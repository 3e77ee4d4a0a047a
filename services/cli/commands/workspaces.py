"""`boatyard workspaces`."""

import asyncio

import click
from boatyard.gateway.v1 import runtime_pb2
from boatyard.workspace.v1 import workspace_pb2

from services.cli import options, shapes, words
from services.cli.clients import gateway
from services.cli.screen import Screen

_COLUMNS = ("WORKSPACE", "STATE", "JOB", "DRIVER", "AGE", "GOES IN", "PATH")


@click.command("workspaces", short_help="List working copies.")
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="How many at most.")
@click.option("--delete", type=options.TEXT, metavar="ID", help="Remove this one, and everything in it, instead.")
@options.as_json
def command(limit: int, delete: str | None, as_json: bool) -> None:
    """List the working copies on this cell, the newest first.

    A job's working copy is removed when the job has succeeded, and kept for a while when it has failed.
    """
    screen = Screen()

    async def main() -> list[workspace_pb2.Workspace]:
        async with gateway() as way:
            if delete is not None:
                request = runtime_pb2.DeleteWorkspaceRequest(workspace_id=delete)
                await way.ask(way.runtime.DeleteWorkspace(request, timeout=600))
                return []
            listed = await way.ask(way.runtime.ListWorkspaces(runtime_pb2.ListWorkspacesRequest(page_size=limit)))
            return list(listed.workspaces)

    found = asyncio.run(main())
    if as_json:
        for workspace in found:
            screen.json(shapes.line(shapes.workspace(workspace)))
    elif delete is not None:
        screen.say(f"{delete} is gone", style="")
    else:
        screen.table(_COLUMNS, map(_row, found))


def _row(workspace: workspace_pb2.Workspace) -> tuple[str, ...]:
    return (
        workspace.workspace_id,
        shapes.name(workspace_pb2.Workspace.State.Name, workspace.state),
        workspace.purpose.job_id,
        workspace.driver,
        words.age(workspace.create_time),
        words.until(workspace.expire_time) if workspace.HasField("expire_time") else "",
        shapes.text(workspace.layout.path) or "",
    )
