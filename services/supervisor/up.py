"""`boatyard up` and `boatyard coordinator`: starts a cell, keeps it running, and stops it on command."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from services.common.errors import ServiceError, StartError
from services.common.lock import is_held, single_instance
from services.common.ports import is_taken
from services.common.room import has_no_room
from services.common.rpc.sockets import is_socket
from services.supervisor.clients import Agents, wait_until_serving
from services.supervisor.commands import SupervisorCommands
from services.supervisor.down import end_agents
from services.supervisor.keeper import Say, ServiceKeeper
from services.supervisor.plan import (
    EVERY_SERVICE,
    EXECUTION,
    GATEWAY,
    HTTP,
    CellPlan,
    cell_file,
    service_lock,
    supervisor_lock,
    write_cell_file,
)
from services.supervisor.process import bound_log

AGENT_GRACE_S = 5.0

_STARTED_WITHIN_S = 60.0
_PREDECESSOR_GONE_WITHIN_S = 20.0
_SECOND_CTRL_C_WITHIN_S = 3.0
_LOGS_EVERY_S = 30.0
_ROOM_EVERY_S = 1.0
_PAUSE_S = 0.05


Announce = Callable[[Collection[str]], None]
"""Says that every service is SERVING, but for those that are named at their ports: other programs have these."""


async def up(plan: CellPlan, announce: Announce, say: Say) -> None:
    """Run a cell until a signal ends it; `announce` is called once, when every service is SERVING.

    Raises StartError when the cell cannot start, or one of its services cannot be kept alive.
    """
    commands = SupervisorCommands()
    for folder in ("run", "logs"):
        plan.home.directory(folder)
    advice = "stop it with `boatyard down`, or set BOATYARD_HOME to another data directory"
    with (
        commands.from_signals(),
        single_instance(supervisor_lock(plan.home), f"runs the cell in {plan.home.root}", advice),
    ):
        await _wait_for_predecessors(plan, commands, say)
        without_ports = _without_ports(plan, say)
        plan.home.cell_token()  # before four processes need it at once
        if plan.driver == GATEWAY:
            plan.home.admin_token()
        if not commands.stop.is_set():
            await _Cell(plan, commands, lambda: announce(without_ports), say).run()
        if commands.end_agents.is_set():  # the command came after the services had stopped
            await end_agents(plan.home, AGENT_GRACE_S)


class _Cell:
    """The services of one `up`."""

    def __init__(self, plan: CellPlan, commands: SupervisorCommands, announce: Callable[[], None], say: Say) -> None:
        self._plan = plan
        self._commands = commands
        self._announce = announce
        self._say = say
        self._agents = Agents(plan.home, plan.addresses[EXECUTION])

    async def run(self) -> None:
        with _lifeline() as lifeline:
            keepers = {
                service: ServiceKeeper(self._plan, service, lifeline, self._say) for service in self._plan.services
            }
            async with _running([keeper.run() for keeper in keepers.values()]) as keeper_tasks:
                try:
                    await self._until_stopped(keepers, keeper_tasks)
                finally:
                    await self._stop(keepers)

    async def _until_stopped(self, keepers: dict[str, ServiceKeeper], keeper_tasks: set[asyncio.Task[object]]) -> None:
        """Wait for the command to stop. Raises StartError when a service cannot be kept alive."""
        async with _running(
            [
                self._announce_when_serving(),
                self._bound_logs(),
                self._restart_when_told(keepers),
                self._commands.stop.wait(),
            ]
        ) as own_tasks:
            pending = keeper_tasks | own_tasks
            while not self._commands.stop.is_set():
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()

    async def _announce_when_serving(self) -> None:
        while not await self._all_serve():
            if not has_no_room(self._plan.home.root):
                logs = self._plan.log_file(self._plan.driver).parent
                raise StartError(f"not all services were SERVING within {_STARTED_WITHIN_S:g} s: see {logs}")
            self._say(f"waiting for room in {self._plan.home.root}")
        while not write_cell_file(self._plan):  # noqa: ASYNC110 - until somebody makes room
            await asyncio.sleep(_ROOM_EVERY_S)
        self._announce()

    async def _all_serve(self) -> bool:
        """Wait until all services are SERVING; return False when that takes too long."""
        addresses = map(self._plan.called_at, self._plan.services)
        try:
            async with asyncio.timeout(_STARTED_WITHIN_S):
                await asyncio.gather(*(wait_until_serving(self._plan.home, address) for address in addresses))
        except TimeoutError:
            return False
        return True

    async def _bound_logs(self) -> None:
        while True:
            await asyncio.sleep(_LOGS_EVERY_S)
            for service in self._plan.services:
                await asyncio.to_thread(bound_log, self._plan.log_file(service))

    async def _restart_when_told(self, keepers: dict[str, ServiceKeeper]) -> None:
        while True:
            await self._commands.restart.wait()
            self._commands.restart.clear()
            self._say("restarting the services; agents go on")
            for keeper in keepers.values():
                await keeper.restart()

    async def _stop(self, keepers: dict[str, ServiceKeeper]) -> None:
        await self._announce_stop()
        await keepers[self._plan.driver].stop()  # first, because it might start another agent
        if self._commands.end_agents.is_set():
            await self._end_agents()
        await asyncio.gather(*(keeper.stop() for keeper in keepers.values()))
        cell_file(self._plan.home).unlink(missing_ok=True)

    async def _announce_stop(self) -> None:
        say = self._say if self._commands.stop.is_set() else lambda _: None  # an error that ends us says all there is
        try:
            count = len(await self._agents.alive())
        except ServiceError:  # the service has stopped, or was not there yet
            say("stopping")
            return
        if not count:
            say("stopping; no agents are running")
        elif self._commands.end_agents.is_set():
            self._say(f"stopping, and ending {agents(count)}")
        else:
            are_left, them = ("is left running", "it") if count == 1 else ("are left running", "them")
            self._say(
                f"stopping; {agents(count)} {are_left}: `{self._plan.command}` continues with {them},"
                f" `boatyard down` ends {them}"
            )
            if self._commands.by_hand:
                self._say(f"press Ctrl-C again within {_SECOND_CTRL_C_WITHIN_S:g} s to end {them} now")
                with suppress(TimeoutError):
                    async with asyncio.timeout(_SECOND_CTRL_C_WITHIN_S):
                        await self._commands.end_agents.wait()

    async def _end_agents(self) -> None:
        try:
            count = await self._agents.end_all(AGENT_GRACE_S)
        except ServiceError as error:
            self._say(f"agents may still be running ({error.message}): `boatyard down` ends them")
            return
        self._commands.end_agents.clear()
        if count:
            self._say(f"ended {agents(count)}")


def agents(count: int) -> str:
    """Return a count of agents in words."""
    return "1 agent" if count == 1 else f"{count} agents"


async def _wait_for_predecessors(plan: CellPlan, commands: SupervisorCommands, say: Say) -> None:
    """Wait until the services of a killed supervisor have drained."""
    deadline = asyncio.get_running_loop().time() + _PREDECESSOR_GONE_WITHIN_S
    is_announced = False
    while held := [service for service in EVERY_SERVICE if is_held(service_lock(plan.home, service))]:
        if asyncio.get_running_loop().time() > deadline:
            raise StartError(f"services of an earlier run do not end ({', '.join(held)}): `boatyard down` ends them")
        if commands.stop.is_set():
            return
        if not is_announced:
            say("waiting for the services of an earlier run to end")
            is_announced = True
        await asyncio.sleep(_PAUSE_S)


def _without_ports(plan: CellPlan, say: Say) -> Collection[str]:
    """Return the services whose ports other programs have, which the gateway does without until they are free.

    Raises StartError for a node service's: it has no socket then, so that nobody could call it.
    """
    taken = [service for service, at in plan.addresses.items() if not is_socket(at) and is_taken(at)]
    for service in taken:
        text = f"another program listens on {plan.addresses[service]}, the address of {service}"
        if service not in {GATEWAY, HTTP}:
            raise StartError(f"{text}: name another one by BOATYARD_{service.upper()}_LISTEN, or none")
        say(f"{text}, which takes it as soon as it is free: `{plan.command} --port-base N` uses other ports")
    return taken


@contextmanager
def _lifeline() -> Iterator[int]:
    """Yield the reading end of a pipe whose other end closes when this process ends, however it ends."""
    reading, writing = os.pipe()
    try:
        yield reading
    finally:
        os.close(writing)
        os.close(reading)


@asynccontextmanager
async def _running(work: list[Coroutine[None, None, object]]) -> AsyncIterator[set[asyncio.Task[object]]]:
    """Run tasks in the background while inside; cancel those that are still running at the end."""
    tasks = {asyncio.create_task(coroutine) for coroutine in work}
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
