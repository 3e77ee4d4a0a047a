"""`boatyard snapshots`."""

import click
from boatyard.gateway.v1 import runtime_pb2
from boatyard.git.v1 import git_pb2

from services.cli import humanize, options, shapes
from services.cli.clients import Gateway, with_gateway
from services.cli.lookup import get_snapshot
from services.cli.screen import Screen, first_line, say_unreachable

_COLUMNS = ("SNAPSHOT", "REPOSITORY", "AGE", "GOES IN", "CELL", "WHAT")


@click.command("snapshots", short_help="List what failed and cancelled jobs left.")
@click.option("--repository", type=options.TEXT, metavar="ID", help="Only those of this repository.")
@click.option(
    "-n", "--limit", metavar="N", type=click.IntRange(1, 1000), default=100, show_default=True, help="List at most N."
)
@click.option("--delete", type=options.TEXT, metavar="ID", help="Delete this snapshot instead of listing.")
@options.as_json
def command(repository: str | None, limit: int, delete: str | None, as_json: bool) -> None:
    """List the snapshots, cell by cell, each cell's newest first.

    What a failed or cancelled job left in its workspace is kept as a snapshot, committed or not. `boatyard diff ID`
    shows it, `boatyard run --from-snapshot ID` continues from it.
    """
    screen = Screen()
    if delete is not None:
        with_gateway(lambda gateway: _delete(gateway, delete))
        if not as_json:
            screen.say(f"{delete} deleted", style="")
        return
    request = runtime_pb2.ListSnapshotsRequest(repository_id=repository or "", page_size=limit)
    answer = with_gateway(lambda gateway: gateway.ask(gateway.runtime.ListSnapshots(request)))
    say_unreachable(screen, answer.unreachable_cell_ids)
    snapshots = [(snapshot, answer.cell_ids[snapshot.snapshot_id]) for snapshot in answer.snapshots]
    screen.listing(snapshots, lambda each: shapes.snapshot(*each), _COLUMNS, _row, as_json=as_json, cut_last=True)


async def _delete(gateway: Gateway, snapshot_id: str) -> None:
    """Delete a snapshot. Raises NotFound: the RPC, which may be repeated, has no word for what was never there."""
    await get_snapshot(gateway, snapshot_id)
    await gateway.ask(gateway.runtime.DeleteSnapshot(runtime_pb2.DeleteSnapshotRequest(snapshot_id=snapshot_id)))


def _row(listed: tuple[git_pb2.Snapshot, str]) -> tuple[str, ...]:
    snapshot, cell_id = listed
    return (
        snapshot.snapshot_id,
        snapshot.repository_id,
        humanize.age(snapshot.create_time),
        humanize.until(snapshot.expire_time) if snapshot.HasField("expire_time") else "",
        cell_id,
        _content(snapshot),
    )


def _content(snapshot: git_pb2.Snapshot) -> str:
    """Say why a tree is kept, and whether it is its base's own: then there is nothing in it to continue from."""
    unchanged = "" if snapshot.commit_id != snapshot.base_commit_id else "; nothing had changed"
    return first_line(snapshot.message, 80) + unchanged
