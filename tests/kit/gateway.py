"""A real gateway as a process of its own, and a way to call any RPC of its public API."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from boatyard.gateway.v1 import (
    admin_pb2,
    audit_pb2,
    auth_pb2,
    budget_pb2,
    catalog_pb2,
    checkpoint_pb2,
    hook_pb2,
    job_pb2,
    runtime_pb2,
)
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from services.common.home import Home
from services.common.rpc.streaming import streaming
from tests.kit.cell import eventually, free_port_base, listens
from tests.kit.databases import add_databases

METHODS: dict[str, MethodDescriptor] = {
    method.full_name.removeprefix("boatyard.gateway.v1."): method
    for file in (
        admin_pb2,
        audit_pb2,
        auth_pb2,
        budget_pb2,
        catalog_pb2,
        checkpoint_pb2,
        hook_pb2,
        job_pb2,
        runtime_pb2,
    )
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}

ENDLESS = {"boatyard.gateway.v1.JobService.WatchJobs", "boatyard.gateway.v1.CheckpointService.WatchCheckpoints"}
"""Streams that never end by themselves: only their first message is read."""


@contextmanager
def running_gateway(directory: Path, **environment: str) -> Iterator[tuple[str, str]]:
    """Run a gateway, and yield its address and token.

    Only those node services run that read requests of the public API themselves: workspace and git.
    """
    home = Home(directory / "home")
    base = free_port_base()
    environment = {
        **os.environ,
        "BOATYARD_HOME": str(home.root),
        "BOATYARD_GIT_FILE_ROOTS": "/",
        "BOATYARD_GATEWAY_LISTEN": f"127.0.0.1:{base}",
        "BOATYARD_GATEWAY_HTTP_LISTEN": f"127.0.0.1:{base + 20}",
        **environment,
    }
    add_databases(home.root)
    log = directory / "log"
    with log.open("wb") as stderr:
        processes = [
            subprocess.Popen([sys.executable, "-P", "-m", name], env=environment, stderr=stderr)
            for name in ("services.gateway", "services.workspace", "services.git")
        ]
    try:
        for service in ("gateway", "workspace", "git"):
            address = home.socket(service)
            eventually(lambda address=address: listens(address), f"something listens at {address}")
        yield f"127.0.0.1:{base}", home.admin_token()
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        ended = [process.wait(timeout=20) for process in processes]
    assert ended == [0, 0, 0], log.read_text()


async def answers(channel: grpc.aio.Channel, method: MethodDescriptor, request: Message) -> list[Message]:
    """Call a method; return all of its responses."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    multicallable = channel.unary_stream if method.server_streaming else channel.unary_unary
    read = GetMessageClass(method.output_type).FromString
    if method.client_streaming and not method.server_streaming:
        call = channel.stream_unary(path, type(request).SerializeToString, read)
        return [await call(iter([request]), timeout=20)]
    if method.client_streaming:
        call = channel.stream_stream(path, type(request).SerializeToString, read)(iter([request]), timeout=20)
    else:
        call = multicallable(path, type(request).SerializeToString, read)(request, timeout=20)
    if not method.server_streaming:
        return [await call]
    async with streaming(call) as stream:
        if method.full_name in ENDLESS:
            return [await anext(aiter(stream))]
        return [answer async for answer in stream]
