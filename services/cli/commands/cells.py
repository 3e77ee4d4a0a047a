"""`boatyard cells`."""

import asyncio
from collections.abc import AsyncIterator

import click
from boatyard.gateway.v1 import admin_pb2

from services.cli import humanize, options, shapes
from services.cli.clients import Gateway, open_gateway
from services.cli.screen import Screen

_COLUMNS = ("CELL", "STATE", "KIND", "JOBS", "HOST", "ADDRESS", "VERSION", "UP", "HEARD OF")


@click.group("cells", invoke_without_command=True, short_help="List machines.")
@options.as_json
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List the machines that take jobs, those too that do not answer.

    JOBS are those that a cell carries now, of those that it has room for. A cell that is AWAY has not been heard of for
    three leases, a minute by default: others go on with its jobs.
    """
    if context.invoked_subcommand is not None:
        return
    screen = Screen()

    async def main() -> list[admin_pb2.Cell]:
        async with open_gateway() as gateway:
            return [cell async for cell in _all(gateway)]

    found = asyncio.run(main())
    if as_json:
        for cell in found:
            screen.json(shapes.line(shapes.cell(cell)))
    else:
        screen.table(_COLUMNS, map(_row, found))


@command.command("forget", short_help="Forget a machine that is gone for good.")
@click.argument("cell_id", metavar="CELL", type=options.TEXT)
def forget(cell_id: str) -> None:
    """Forget a machine that is gone for good; by itself that happens after some days.

    Jobs that could go on there alone, from a snapshot that it has, fail.
    """

    async def main() -> None:
        async with open_gateway() as gateway:
            await gateway.ask(gateway.admin.ForgetCell(admin_pb2.ForgetCellRequest(cell_id=cell_id)))

    asyncio.run(main())
    Screen().say(f"{cell_id} is forgotten", style="")


async def _all(gateway: Gateway) -> AsyncIterator[admin_pb2.Cell]:
    request = admin_pb2.ListCellsRequest(page_size=1000)
    while True:
        answer = await gateway.ask(gateway.admin.ListCells(request))
        for cell in answer.cells:
            yield cell
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token


def _row(cell: admin_pb2.Cell) -> tuple[str, ...]:
    return (
        cell.cell_id,
        shapes.name(admin_pb2.Cell.State.Name, cell.state),
        shapes.name(admin_pb2.Cell.Kind.Name, cell.kind, "KIND_").lower(),
        f"{cell.running_jobs} of {cell.capacity}",
        cell.host,
        cell.address,
        cell.version,
        humanize.age(cell.start_time),
        humanize.age(cell.beat_time),
    )
