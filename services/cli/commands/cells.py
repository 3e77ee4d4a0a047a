"""`boatyard cells`."""

import click
from boatyard.gateway.v1 import admin_pb2

from services.cli import humanize, options, shapes
from services.cli.clients import Gateway, with_gateway
from services.cli.screen import Screen
from services.common.errors import NotFound

_COLUMNS = ("CELL", "STATE", "KIND", "JOBS", "HOST", "ADDRESS", "VERSION", "UP", "HEARD OF")


@click.group("cells", invoke_without_command=True, short_help="List cells; stop, restart or forget one.")
@options.as_json
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List the cells that run jobs, including those that do not answer.

    JOBS is how many jobs a cell is running, of how many it has room for. A cell that is AWAY has sent no heartbeat for
    three leases, a minute by default: other cells continue its jobs. One that is NOT_READY takes no new jobs, for the
    reasons below the list.
    """
    if context.invoked_subcommand is not None:
        return
    cells = with_gateway(lambda gateway: gateway.list_all(gateway.admin.ListCells, admin_pb2.ListCellsRequest()))
    screen = Screen()
    screen.listing(cells, shapes.cell, _COLUMNS, _row, as_json=as_json)
    if not as_json:
        for cell in cells:
            for trouble in cell.troubles:
                screen.say(f"{cell.cell_id} takes no new jobs: {trouble.reason}: {trouble.message}", style="yellow")


@command.command("forget", short_help="Forget a cell that is gone for good.")
@click.argument("cell_id", metavar="CELL", type=options.TEXT)
@options.as_json
def forget(cell_id: str, as_json: bool) -> None:
    """Forget a cell that is gone for good. Without this command it is forgotten after some days.

    Jobs that could continue only there, from a snapshot that only it has, fail.
    """

    async def forget_known(gateway: Gateway) -> None:
        """Raises NotFound: the RPC, which may be repeated, has no word for what was never there."""
        cells = await gateway.list_all(gateway.admin.ListCells, admin_pb2.ListCellsRequest())
        if cell_id not in {cell.cell_id for cell in cells}:
            raise NotFound("cell", cell_id)
        await gateway.ask(gateway.admin.ForgetCell(admin_pb2.ForgetCellRequest(cell_id=cell_id)))

    with_gateway(forget_known)
    if not as_json:
        Screen().say(f"{cell_id} forgotten", style="")


@command.command("stop", short_help="Stop a cell.")
@options.cell
@click.option("--agents", "end_agents", is_flag=True, help="End its agents too, as `boatyard down` does there.")
@options.as_json
def stop(cell_id: str, end_agents: bool, as_json: bool) -> None:
    """Stop a cell, or without CELL this one: its `boatyard up` ends its services, and then itself.

    Its agents go on until it is started again, on its machine. `boatyard pause --wait` lets it finish its jobs before.
    """
    request = admin_pb2.StopCellRequest(cell_id=cell_id, end_agents=end_agents)
    stopped = with_gateway(lambda gateway: gateway.ask(gateway.admin.StopCell(request))).cell_id
    Screen().answer({"kind": "stop", "cell_id": stopped}, f"{stopped} is stopping", as_json=as_json)


@command.command("restart", short_help="Restart the services of a cell.")
@options.cell
@options.as_json
def restart(cell_id: str, as_json: bool) -> None:
    """Restart the services of a cell, or without CELL of this one. Its jobs and agents go on."""
    request = admin_pb2.RestartCellRequest(cell_id=cell_id)
    restarted = with_gateway(lambda gateway: gateway.ask(gateway.admin.RestartCell(request))).cell_id
    Screen().answer({"kind": "restart", "cell_id": restarted}, f"{restarted} restarts its services", as_json=as_json)


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
