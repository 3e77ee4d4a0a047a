"""A real service process: it starts with one line of complaint or none, and ends without losses."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.common import errors
from services.common.rpc.channel import open_channel, service_config
from services.common.rpc.draining import Draining
from services.common.rpc.server import EXIT_STUCK, Registration
from services.common.rpc.status import service_error
from services.common.rpc.streaming import streaming
from tests.kit.link import linked
from tests.kit.servers import TOKEN, serving
from tests.unit.common.rpc.echo import Echo, EchoStub

PROGRAM = """
import asyncio, sys
from services.common import program
from services.common.rpc import server
from services.common.rpc.auth import cell_authenticator
from services.common.rpc.draining import Draining
from tests.unit.common.rpc.echo import Echo

async def main():
    await server.serve(listen=sys.argv[1], registrations=[Echo().registration()], authenticator=cell_authenticator("t"),
                       draining=Draining(), on_started=lambda address: print(address, flush=True))
    # the end

program.run("echo", main)
"""
STUCK = PROGRAM.replace("# the end", "await asyncio.Event().wait()").replace(
    "async def main", "server._END_SECONDS = -4\n\nasync def main"
)


@asynccontextmanager
async def service(
    listen: str = "127.0.0.1:0", program: str = PROGRAM, **options: object
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, listen, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, **options
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def address_of(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), 20)).decode().strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_well(number: int) -> None:
    async with service() as process:
        await address_of(process)
        process.send_signal(number)
        assert await asyncio.wait_for(process.wait(), 10) == 0


async def test_what_hangs_does_not_hold_up_the_end() -> None:
    async with service(program=STUCK) as process:
        await address_of(process)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 20) == EXIT_STUCK


async def test_it_ends_with_its_supervisor() -> None:
    theirs, ours = os.pipe()
    async with service(pass_fds=[theirs], env={**os.environ, "BOATYARD_LIFELINE_FD": str(theirs)}) as process:
        os.close(theirs)
        await address_of(process)
        assert process.returncode is None
        os.close(ours)
        assert await asyncio.wait_for(process.wait(), 10) == 0


async def test_a_taken_port_is_one_clear_line() -> None:
    async with service() as first:
        address = await address_of(first)
        async with service(address) as second:
            _, complaint = await asyncio.wait_for(second.communicate(), 20)
            assert second.returncode == 78
            expected = f"boatyard echo: cannot listen on {address}: is another service running there?"
            assert complaint.decode().splitlines()[-1] == expected
            assert b"Traceback" not in complaint


class Watch:
    """A stream of numbers from 10 on that then waits for ever, as a log that is followed does."""

    def __init__(self, draining: Draining) -> None:
        self.draining = draining

    async def numbers(self) -> AsyncIterator[int]:
        for number in range(10, 13):
            yield number
        await asyncio.Event().wait()

    async def watch(self, request: bytes, context: object) -> AsyncIterator[bytes]:
        async for number in self.draining.stream(self.numbers(), start=10, position_after=lambda item: item + 1):
            yield str(number).encode()

    async def wait(self, request: bytes, context: object) -> bytes:
        async with self.draining.interrupting():
            await asyncio.Event().wait()
        return b""

    def add(self, servicer: object, server: grpc.aio.Server) -> None:
        handlers = {
            "Watch": grpc.unary_stream_rpc_method_handler(self.watch),
            "Wait": grpc.unary_unary_rpc_method_handler(self.wait),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Watch", handlers),))

    def registration(self) -> Registration:
        return Registration("test.Watch", self.add, self)


async def test_streams_and_waits_end_by_themselves_and_say_where_to_go_on() -> None:
    draining = Draining()
    async with (
        serving(Watch(draining).registration(), draining=draining) as server,
        open_channel(server.address, TOKEN) as channel,
    ):
        watch, wait = channel.unary_stream("/test.Watch/Watch"), channel.unary_unary("/test.Watch/Wait")
        async with streaming(watch(b"")) as stream:
            assert [await stream.read() for _ in range(3)] == [b"10", b"11", b"12"]
            waiting = asyncio.ensure_future(wait(b""))
            health = health_pb2_grpc.HealthStub(channel)
            async with streaming(health.Watch(health_pb2.HealthCheckRequest())) as states:
                assert (await states.read()).status == health_pb2.HealthCheckResponse.SERVING
                started = asyncio.get_running_loop().time()
                stopping = asyncio.ensure_future(server.stop(grace=5))
                assert (await states.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stream.read()
            with pytest.raises(grpc.aio.AioRpcError) as waited:
                await waiting
            await stopping
            assert asyncio.get_running_loop().time() - started < 2, "the stop cost the grace"
    error, other = service_error(caught.value), service_error(waited.value)
    assert isinstance(error, errors.Unavailable)
    assert (error.reason, error.resume_from, error.retry_after) == ("DRAINING", 13, 1.0)
    assert isinstance(other, errors.Unavailable)


def echo_descriptor() -> ServiceDescriptor:
    """Describe Echo as a proto would: each method at another idempotency level."""
    file = descriptor_pb2.FileDescriptorProto(name="echo_levels.proto", package="boatyard.test.v1", syntax="proto3")
    file.message_type.add(name="Empty")
    declared = file.service.add(name="EchoService")
    for name, level in (("Unary", 1), ("ServerStream", 2), ("ClientStream", 0)):
        method = declared.method.add(
            name=name, input_type=".boatyard.test.v1.Empty", output_type=".boatyard.test.v1.Empty"
        )
        method.options.idempotency_level = level
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool.FindServiceByName("boatyard.test.v1.EchoService")


async def test_safe_methods_are_tried_again_and_others_are_not() -> None:
    descriptor = echo_descriptor()
    named = [entry["method"] for entry in service_config([descriptor])["methodConfig"][0]["name"]]
    assert named == ["Unary", "ServerStream"]

    attempts: list[str] = []

    async def answer(text: str) -> str:
        attempts.append(text)
        if len(attempts) < 3:
            raise errors.Unavailable("DRAINING", "again")
        return text

    async with serving(Echo(answer).registration()) as server:
        async with open_channel(server.address, TOKEN, services=[descriptor]) as channel:
            assert await EchoStub(channel).unary(b"x") == b"x"
        assert len(attempts) == 3
        attempts.clear()
        async with open_channel(server.address, TOKEN) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await EchoStub(channel).unary(b"x")
        assert len(attempts) == 1


async def test_a_killed_service_is_found_again_on_its_port_at_once() -> None:
    """Connections of the dead one linger in the kernel; neither the new server nor old channels may mind."""
    async with service() as first:
        address = await address_of(first)
        async with open_channel(address, "t", services=[echo_descriptor()]) as channel:
            stub = EchoStub(channel)
            assert await stub.unary(b"x") == b"x"
            first.kill()
            await first.wait()
            async with service(address) as second:
                assert await address_of(second) == address
                assert await stub.unary(b"y", wait_for_ready=True) == b"y"
                second.terminate()
                assert await asyncio.wait_for(second.wait(), 10) == 0


async def is_answered(health: health_pb2_grpc.HealthStub) -> bool:
    """Tell whether a call gets its answer; one that begins while a dead connection is closed gets none."""
    try:
        await health.Check(health_pb2.HealthCheckRequest())
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False
    return True


@pytest.mark.slow
async def test_a_link_that_swallows_everything_is_noticed_however_long_nothing_was_said() -> None:
    async with serving(Echo().registration()) as server:
        with linked(server.address) as link:
            async with open_channel(link.address, TOKEN) as channel:
                health = health_pb2_grpc.HealthStub(channel)
                async with streaming(health.Watch(health_pb2.HealthCheckRequest())) as messages:
                    assert isinstance(await messages.read(), health_pb2.HealthCheckResponse)
                    with pytest.raises(TimeoutError):
                        async with asyncio.timeout(21):  # four pings, which the server is to take well
                            await messages.read()
                async with streaming(health.Watch(health_pb2.HealthCheckRequest())) as messages:
                    assert isinstance(await messages.read(), health_pb2.HealthCheckResponse)
                    link.forget()
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        async with asyncio.timeout(60):
                            await messages.read()
                    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
                async with asyncio.timeout(60):
                    while not await is_answered(health):
                        await asyncio.sleep(0.1)
