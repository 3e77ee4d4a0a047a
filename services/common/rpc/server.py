"""Runs the server of a service: options, layers, health, reflection, and a graceful stop."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection as grpc_reflection

from services.common.errors import StartError
from services.common.ports import AGAIN_SECONDS, is_taken
from services.common.rpc.auth import Authenticator
from services.common.rpc.bounds import MOST_CALLS, Bounds
from services.common.rpc.call import Inspect, Layer, Screen, let_pass, show_all
from services.common.rpc.connections import Connections
from services.common.rpc.draining import Draining
from services.common.rpc.interceptor import Interceptor
from services.common.rpc.layers import layers
from services.common.rpc.rules import Check, Rules
from services.common.rpc.sockets import ServedSocket, is_socket
from services.common.rpc.tls import ServerTls
from services.common.supervision import LIFELINE_VARIABLE

UNARY_LIMIT_SECONDS = 600.0
GRACE_SECONDS = 5.0
_END_SECONDS = 7.0  # plus the grace: for what follows the server's stop, such as closing a database
EXIT_STUCK = 75  # EX_TEMPFAIL of sysexits.h

_OPTIONS = (
    ("grpc.so_reuseport", 0),  # otherwise a second server can bind the same port and take half of the calls
    # A frozen client is noticed after 40 s at most, and clients may ping as often as ours do (STYLE §4).
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_frame_size", 1 << 20),  # with frames of 16 KiB a flood of events costs a tenth more
    ("grpc.http2.min_ping_interval_without_data_ms", 2_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Of one connection; more wait at the client. Above what there is room for, so that who has too many is told.
    ("grpc.max_concurrent_streams", 2 * MOST_CALLS),
    # Connections on which nothing is called: those that never begin HTTP/2, and those that were left open.
    ("grpc.server_handshake_timeout_ms", 20_000),
    ("grpc.max_connection_idle_ms", 120_000),
)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Registration:
    """One gRPC service: its full name, the generated function that adds it to a server, and its servicer.

    `checks` are rules for messages as a whole, by their full names: see `rpc.rules`. `keeps_jobs` is True when its
    calls keep jobs going, so that room is kept for them: see `rpc.bounds`.
    """

    name: str
    add: Callable[[Any, grpc.aio.Server], None]
    servicer: object
    checks: Mapping[str, Check] = field(default_factory=dict)
    keeps_jobs: bool = False


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that serves at `address` (host:port with the real port when 0 was requested, or unix:PATH)."""

    address: str
    draining: Draining
    _servers: Sequence[grpc.aio.Server]
    _health: health.aio.HealthServicer
    _sockets: Sequence[ServedSocket]
    _watching: asyncio.Task[None] | None
    _waiting: asyncio.Task[None] | None = None

    async def stop(self, grace: float = GRACE_SECONDS) -> None:
        """Report NOT_SERVING, let streams end, refuse new calls, and cancel what is left after `grace` seconds."""
        await self._health.enter_graceful_shutdown()
        self.draining.begin()
        for task in (self._watching, self._waiting):
            if task is not None:
                task.cancel()
        await asyncio.gather(*(server.stop(grace) for server in self._servers))
        for socket in self._sockets:
            socket.close()


async def start_server(
    *,
    listen: str,
    socket: str | None = None,
    registrations: Sequence[Registration],
    authenticator: Authenticator,
    draining: Draining,
    reflection: bool = True,
    unary_limit_seconds: float = UNARY_LIMIT_SECONDS,
    inspect: Inspect = let_pass,
    screen: Screen = show_all,
    around: Sequence[Layer] = (),
    tls: ServerTls | None = None,
    waits_for_port: bool = False,
) -> RunningServer:
    """Start serving at `listen` (host:port, where port 0 takes any free one, or unix:PATH), and at `socket` too.

    `tls` is for ports alone: who can reach a socket can read its owner's files. With `waits_for_port`, a port at which
    another program listens is served as soon as it is free, and `socket` until then. Raises StartError when another
    server listens there, or the contract has a rule that is not evaluated.
    """
    rules = Rules({name: check for registration in registrations for name, check in registration.checks.items()})
    rules.compile([registration.name for registration in registrations])
    bounds = Bounds([registration.name for registration in registrations if registration.keeps_jobs])
    connections = Connections()
    passed = layers(authenticator, unary_limit_seconds, around, bounds, connections)
    interceptor = Interceptor(passed, inspect, rules, screen, bounds)
    servicer = health.aio.HealthServicer()
    for registration in registrations:
        await servicer.set(registration.name, health_pb2.HealthCheckResponse.SERVING)

    def new_server() -> grpc.aio.Server:
        made = grpc.aio.server(interceptors=[interceptor], options=_OPTIONS)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, made)
        for registration in registrations:
            registration.add(registration.servicer, made)
        if reflection:
            names = [registration.name for registration in registrations]
            grpc_reflection.enable_server_reflection([*names, health.SERVICE_NAME, grpc_reflection.SERVICE_NAME], made)
        return made

    server = new_server()
    waits = waits_for_port and socket is not None and not is_socket(listen) and is_taken(listen)
    # The port comes first: whoever finds the socket there may use the port too.
    address = listen if is_socket(listen) or waits else _add_port(server, listen, tls)
    sockets = [ServedSocket(address) for address in (listen, socket) if address is not None and is_socket(address)]
    for served in sockets:
        server.add_insecure_port(served.target)
    await server.start()
    servers = [server]
    waiting = asyncio.create_task(_serve_when_free(new_server, listen, tls, servers)) if waits else None
    watching = None
    if not is_socket(address):
        port = int(address.rpartition(":")[2])
        watching = asyncio.create_task(connections.watch(port), name="connections")
    return RunningServer(address, draining, servers, servicer, sockets, watching, waiting)


async def _serve_when_free(
    new_server: Callable[[], grpc.aio.Server], listen: str, tls: ServerTls | None, servers: list[grpc.aio.Server]
) -> None:
    """Serve at a port as soon as the program that has it is gone. A server takes no further port once it serves."""
    log.warning("another program listens at the port: served at the socket alone until it is free", address=listen)
    while True:
        await asyncio.sleep(AGAIN_SECONDS)
        if is_taken(listen):
            continue
        server = new_server()
        try:
            _add_port(server, listen, tls)
        except StartError as error:  # another program was quicker, or the certificate cannot be used
            log.warning("cannot serve at the port yet", address=listen, error=str(error))
            continue
        servers.append(server)
        await server.start()
        log.info("serving", address=listen)
        return


def _add_port(server: grpc.aio.Server, listen: str, tls: ServerTls | None) -> str:
    """Listen at host:port; return it with the real port."""
    try:
        port = server.add_insecure_port(listen) if tls is None else server.add_secure_port(listen, tls.credentials())
    except RuntimeError as error:
        raise StartError(f"cannot listen on {listen}: is another service running there?") from error
    return f"{listen.rpartition(':')[0]}:{port}"


async def serve(
    *,
    listen: str,
    socket: str | None = None,
    registrations: Sequence[Registration],
    authenticator: Authenticator,
    draining: Draining,
    reflection: bool = True,
    unary_limit_seconds: float = UNARY_LIMIT_SECONDS,
    inspect: Inspect = let_pass,
    screen: Screen = show_all,
    around: Sequence[Layer] = (),
    tls: ServerTls | None = None,
    waits_for_port: bool = False,
    grace: float = GRACE_SECONDS,
    on_started: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT or the end of the lifeline, then drain and stop; `on_started` gets the address.

    The lifeline is the reading end of a pipe, with its number in BOATYARD_LIFELINE_FD: it ends when the process with
    the other end dies, so that no service outlives its supervisor.
    """
    with (
        _requests_to_stop() as stop_reason
    ):  # before the first caller can reach us, because it may be the one that stops us
        running = await start_server(
            listen=listen,
            socket=socket,
            registrations=registrations,
            authenticator=authenticator,
            draining=draining,
            reflection=reflection,
            unary_limit_seconds=unary_limit_seconds,
            inspect=inspect,
            screen=screen,
            around=around,
            tls=tls,
            waits_for_port=waits_for_port,
        )
        try:
            log.info("serving", address=running.address)
            if on_started is not None:
                on_started(running.address)
            log.info("draining", why=await stop_reason)
            _end_at_the_latest_in(grace + _END_SECONDS)
        finally:
            await running.stop(grace)
    log.info("stopped")


def _end_at_the_latest_in(seconds: float) -> None:
    """Exit after `seconds` even when something hangs, such as a database that does not answer.

    That is no worse than kill -9, from which every service recovers.
    """

    def end() -> None:
        log.error("stopping took too long and was cut short", seconds=seconds)
        os._exit(EXIT_STUCK)

    timer = threading.Timer(seconds, end)  # a thread, because the event loop itself may hang
    timer.daemon = True
    timer.start()


@contextmanager
def _requests_to_stop() -> Iterator[asyncio.Future[str]]:
    """Give a future that gets the reason at the first signal, or at the end of the lifeline."""
    loop = asyncio.get_running_loop()
    stop_reason: asyncio.Future[str] = loop.create_future()

    def tell(why: str) -> None:
        if not stop_reason.done():
            stop_reason.set_result(why)

    lifeline = _take_lifeline()
    # The handlers stay until the process ends: a second signal must not interrupt the stop.
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, tell, number.name)
    if lifeline is None:
        yield stop_reason
        return
    loop.add_reader(lifeline, tell, "the supervisor died")
    try:
        yield stop_reason
    finally:
        loop.remove_reader(lifeline)
        os.close(lifeline)


def _take_lifeline() -> int | None:
    """Return the lifeline, and keep it from children, which must not end with our supervisor."""
    text = os.environ.pop(LIFELINE_VARIABLE, None)
    if text is None:
        return None
    try:
        descriptor = int(text)
        os.set_inheritable(descriptor, False)
    except (ValueError, OSError) as error:
        raise StartError(f"{LIFELINE_VARIABLE}={text} is not an open file descriptor") from error
    return descriptor
