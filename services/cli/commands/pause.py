"""`boatyard pause`."""

import asyncio

import click
from boatyard.gateway.v1 import admin_pb2

from services.cli import options, shapes
from services.cli.clients import Gateway, with_gateway
from services.cli.screen import Screen

_AGAIN_S = 0.5


@click.command("pause", short_help="Have a cell take no more jobs.")
@click.argument("cell_id", metavar="CELL", type=options.TEXT)
@click.option("--wait", is_flag=True, help="Return when it carries no job any more.")
@click.option("--until-start", is_flag=True, help="Have it take jobs again when it is started the next time.")
@options.as_json
def command(cell_id: str, wait: bool, until_start: bool, as_json: bool) -> None:
    """Have a cell take no more jobs, until `boatyard resume`; without `--until-start` a restart does not change it.

    It goes on with the jobs that it has. A restart of a cell's services loses none of them; before its machine, or its
    container, is ended, `--wait` for them, or they are begun anew on another cell.
    """

    async def paused(gateway: Gateway) -> admin_pb2.Cell:
        while True:
            request = admin_pb2.PauseCellRequest(cell_id=cell_id, until_start=until_start)
            cell = (await gateway.ask(gateway.admin.PauseCell(request))).cell
            if not (wait and cell.running_jobs):
                return cell
            await asyncio.sleep(_AGAIN_S)

    cell = with_gateway(paused)
    text = f"{cell_id} takes no more jobs; it carries {cell.running_jobs}"
    Screen().answer(shapes.cell(cell), text, as_json=as_json)
