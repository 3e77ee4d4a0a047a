"""`boatyard pause`."""

import asyncio

import click
from boatyard.gateway.v1 import admin_pb2

from services.cli import options, shapes
from services.cli.clients import Gateway, with_gateway
from services.cli.screen import Screen

_AGAIN_S = 0.5


@click.command("pause", short_help="Stop a cell from taking new jobs.")
@options.cell
@click.option("--wait", is_flag=True, help="Wait until the cell is running no jobs.")
@click.option("--until-start", is_flag=True, help="Let it take jobs again when it is next started.")
@options.as_json
def command(cell_id: str, wait: bool, until_start: bool, as_json: bool) -> None:
    """Stop a cell, or without CELL this one, from taking new jobs until `boatyard resume`.

    Without --until-start it stays paused across restarts.

    The cell continues the jobs that it has. Restarting its services loses none of them; before you stop its machine or
    its container, use --wait, or they start again on another cell.
    """

    async def pause(gateway: Gateway) -> admin_pb2.Cell:
        while True:
            request = admin_pb2.PauseCellRequest(cell_id=cell_id, until_start=until_start)
            cell = (await gateway.ask(gateway.admin.PauseCell(request))).cell
            if not (wait and cell.running_jobs):
                return cell
            await asyncio.sleep(_AGAIN_S)

    cell = with_gateway(pause)
    text = f"{cell.cell_id} is paused; jobs still running: {cell.running_jobs}"
    Screen().answer(shapes.cell(cell), text, as_json=as_json)
