"""`boatyard agents`."""

import asyncio
import os

import click
import grpc
from boatyard.execution.v1 import execution_pb2
from boatyard.execution.v1.execution_pb2_grpc import ExecutionServiceStub

from services.cli import options
from services.cli.screen import Screen
from services.cli.shapes import Shape
from services.common.errors import StartError
from services.common.home import Home, read_token
from services.common.rpc.nodes import open_node_channel
from services.supervisor.plan import plan, read_called_at

_TIMEOUT_S = 10.0
_COLUMNS = ("AGENT", "VERSION", "LICENCE", "PROGRAM")


@click.command("agents", short_help="List the agents that this machine knows by name.")
@options.as_json
def command(as_json: bool) -> None:
    """List the agents that `boatyard run --agent NAME` starts on this machine, and what to install for the others.

    VERSION is what the program itself says of it.
    """
    home = Home.from_environment()
    try:
        agents = asyncio.run(_agents(home))
    except (StartError, grpc.aio.AioRpcError) as error:
        raise click.ClickException("no cell answers on this machine: start it with `boatyard up`") from error
    screen = Screen()
    screen.listing(agents, _shape, _COLUMNS, _row, as_json=as_json)
    if not as_json:
        for agent in agents:
            if agent.complaint:
                screen.say(f"{agent.name}: {agent.complaint}", style="yellow")


async def _agents(home: Home) -> list[execution_pb2.AgentPreset]:
    """Ask this machine's execution service. Raises StartError without its token, and AioRpcError."""
    address = {"execution": plan(home, None, os.environ).called_at("execution"), **read_called_at(home)}["execution"]
    async with open_node_channel(home, address, read_token(home.cell_token_file)) as channel:
        request = execution_pb2.DescribeNodeRequest()
        return list((await ExecutionServiceStub(channel).DescribeNode(request, timeout=_TIMEOUT_S)).agents)


def _shape(agent: execution_pb2.AgentPreset) -> Shape:
    fields = ("name", "title", "licence", "install", "program", "version", "complaint")
    return {field: getattr(agent, field) or None for field in fields}


def _row(agent: execution_pb2.AgentPreset) -> tuple[str, ...]:
    return agent.name, agent.version or "-", agent.licence, agent.program or "-"
