"""`boatyard resume`."""

import click
from boatyard.gateway.v1 import admin_pb2

from services.cli import options, shapes
from services.cli.clients import with_gateway
from services.cli.screen import Screen


@click.command("resume", short_help="Let a cell take jobs again.")
@options.cell
@options.as_json
def command(cell_id: str, as_json: bool) -> None:
    """Let a cell, or without CELL this one, take jobs again after `boatyard pause`."""
    request = admin_pb2.ResumeCellRequest(cell_id=cell_id)
    cell = with_gateway(lambda gateway: gateway.ask(gateway.admin.ResumeCell(request))).cell
    Screen().answer(
        shapes.cell(cell), f"{cell.cell_id} takes jobs again, at most {cell.capacity} at once", as_json=as_json
    )
