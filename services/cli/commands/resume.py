"""`boatyard resume`."""

import asyncio

import click
from boatyard.gateway.v1 import admin_pb2

from services.cli import options, shapes
from services.cli.clients import open_gateway
from services.cli.screen import Screen


@click.command("resume", short_help="Have a cell take jobs again.")
@click.argument("cell_id", metavar="CELL", type=options.TEXT)
@options.as_json
def command(cell_id: str, as_json: bool) -> None:
    """Have a cell take jobs again after `boatyard pause`."""
    screen = Screen()

    async def main() -> admin_pb2.Cell:
        async with open_gateway() as gateway:
            return (await gateway.ask(gateway.admin.ResumeCell(admin_pb2.ResumeCellRequest(cell_id=cell_id)))).cell

    cell = asyncio.run(main())
    if as_json:
        screen.json(shapes.line(shapes.cell(cell)))
    else:
        screen.say(f"{cell_id} takes jobs, {cell.capacity} at once", style="")
