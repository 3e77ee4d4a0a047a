"""Node services that run for a moment, without a cell, so that they say what they find on this machine."""

import asyncio
import os
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

from services.cli.cell_checks import nodes
from services.cli.findings import FAIL, Finding
from services.common.errors import StartError
from services.common.home import Home, read_token
from services.supervisor.clients import wait_until_serving
from services.supervisor.plan import NODE_SERVICES, CellPlan, plan
from services.supervisor.process import ServiceProcess, log_tail

_SERVING_WITHIN_S = 30.0


def of_started_nodes() -> Iterator[Finding]:
    """Start the node services in a directory that is removed again, and yield what they find."""
    with tempfile.TemporaryDirectory(prefix="boatyard-doctor-") as directory:
        yield from asyncio.run(_findings(Home(Path(directory))))


async def _findings(home: Home) -> list[Finding]:
    for folder in ("run", "logs"):
        home.directory(folder)
    home.cell_token()
    cell = plan(home, None, os.environ)
    reading, writing = os.pipe()
    async with AsyncExitStack() as stack:
        stack.callback(os.close, reading)
        stack.callback(os.close, writing)
        for service in NODE_SERVICES:
            process = await ServiceProcess.start(cell, service, reading)
            stack.push_async_callback(process.stop)
        complaints = [each for each in await asyncio.gather(*(_complaint(cell, one) for one in NODE_SERVICES)) if each]
        addresses = {service: cell.called_at(service) for service in NODE_SERVICES}
        found = await asyncio.to_thread(lambda: list(nodes(home, addresses, read_token(home.cell_token_file))))
    return [*complaints, *found]


async def _complaint(cell: CellPlan, service: str) -> Finding | None:
    """Wait until a service serves; return why it does not."""
    try:
        async with asyncio.timeout(_SERVING_WITHIN_S):
            await wait_until_serving(cell.home, cell.called_at(service))
    except (TimeoutError, StartError):
        last_words = log_tail(cell.log_file(service)).rpartition("\n")[2]
        return Finding(f"{service} service", FAIL, f"does not start: {last_words}", "mend that, and check again")
    return None
