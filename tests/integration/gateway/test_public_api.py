"""The whole public API from outside: a real gateway, and every RPC.

Of the node services only the one is there that reads a request of the public API itself (ListWorkspaces).
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from boatyard.gateway.v1 import catalog_pb2, hook_pb2, job_pb2, runtime_pb2
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from services.common.rpc.channel import open_channel
from services.common.rpc.streaming import streaming
from services.common.settings import Home
from tests.kit import contract
from tests.kit.cell import eventually, free_port_base

METHODS: dict[str, MethodDescriptor] = {
    method.full_name.removeprefix("boatyard.gateway.v1."): method
    for file in (catalog_pb2, hook_pb2, job_pb2, runtime_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
COMMENTS = {method.name.removeprefix("boatyard.gateway.v1."): method.comment for method in contract.methods()}

# Wrong in one way or more; what is not here is wrong when it is empty.
BAD: dict[str, dict] = {
    **{name: {"page_size": -1} for name in METHODS if name.partition(".")[2].startswith("List")},
    "AgentRuntimeService.WatchExecution": {"execution_id": "No", "from_sequence": -1},
}

UNKNOWN: dict[str, tuple[dict, str]] = {
    "AgentRuntimeService.Execute": (
        {"worker_id": "nobody", "work_item_id": "nothing", "prompt": "x"},
        "WORKER_NOT_FOUND",
    ),
    **{
        f"AgentRuntimeService.{name}": ({"execution_id": "nothing"}, "EXECUTION_NOT_FOUND")
        for name in ("GetExecution", "CancelExecution", "WatchExecution", "ReadDiff")
    },
    "JobService.CreateJob": ({"spec": {"prompt": "x", "repository_id": "nothing"}}, "REPOSITORY_NOT_FOUND"),
    **{f"JobService.{name}": ({"job_id": "nothing"}, "JOB_NOT_FOUND") for name in ("GetJob", "CancelJob", "WatchJob")},
    "HookService.RegisterHook": (
        {"hook": {"project_id": "nowhere", "event": "EVENT_PRE", "command": "true"}},
        "PROJECT_NOT_FOUND",
    ),
    "HookService.UnregisterHook": ({"hook_id": "nothing"}, "HOOK_NOT_FOUND"),
    **{
        f"CatalogService.Get{kind.title().replace('_', '')}": ({f"{kind}_id": "nothing"}, f"{kind.upper()}_NOT_FOUND")
        for kind in ("project", "repository", "template", "worker", "work_item")
    },
    "CatalogService.CreateRepository": (
        {"repository": {"project_id": "nowhere", "url": "/srv/git/x"}},
        "PROJECT_NOT_FOUND",
    ),
    "CatalogService.CreateTemplate": ({"template": {"project_id": "nowhere"}}, "PROJECT_NOT_FOUND"),
    "CatalogService.CreateWorker": ({"worker": {"template_id": "nothing"}}, "TEMPLATE_NOT_FOUND"),
    "CatalogService.CreateWorkItem": (
        {"work_item": {"title": "x", "repository_id": "nothing"}},
        "REPOSITORY_NOT_FOUND",
    ),
}


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Give a gateway's address and token."""
    home = Home(tmp_path_factory.mktemp("gateway") / "home")
    base = free_port_base()
    environment = {
        "BOATYARD_HOME": str(home.root),
        "BOATYARD_GATEWAY_LISTEN": f"127.0.0.1:{base}",
        "BOATYARD_WORKSPACE_LISTEN": f"127.0.0.1:{base + 1}",
        **{
            f"BOATYARD_GATEWAY_{name}_ADDRESS": f"127.0.0.1:{base + number}"
            for number, name in enumerate(("WORKSPACE", "GIT", "EXECUTION"), start=1)
        },
    }
    log = Path(home.root.parent / "log")
    with log.open("wb") as stderr:
        processes = [
            subprocess.Popen([sys.executable, "-P", "-m", name], env=os.environ | environment, stderr=stderr)
            for name in ("services.gateway", "services.workspace")
        ]
    try:
        for port in (base, base + 1):
            eventually(lambda port=port: listens(port), f"something listens on {port}")
        yield f"127.0.0.1:{base}", home.admin_token()
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        ended = [process.wait(timeout=20) for process in processes]
    assert ended == [0, 0], log.read_text()


async def answers(channel: grpc.aio.Channel, method: MethodDescriptor, fields: dict) -> list[Message]:
    """Call a method; return all that it answers."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    request_type, response_type = (GetMessageClass(kind) for kind in (method.input_type, method.output_type))
    make = channel.unary_stream if method.server_streaming else channel.unary_unary
    call = make(path, request_type.SerializeToString, response_type.FromString)(request_type(**fields), timeout=20)
    if not method.server_streaming:
        return [await call]
    async with streaming(call) as stream:
        return [answer async for answer in stream]


async def fail(gateway: tuple[str, str | None], name: str, fields: dict) -> tuple[grpc.StatusCode, dict[str, Message]]:
    """Call a method that must fail; return its status, and its details by their names."""
    address, token = gateway
    async with open_channel(address, token) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await answers(channel, METHODS[name], fields)
    described = rpc_status.from_call(caught.value)
    assert described, (name, caught.value)
    details: dict[str, Message] = {}
    for packed in described.details:
        detail = getattr(error_details_pb2, packed.type_url.rpartition(".")[2])()
        assert packed.Unpack(detail)
        details[type(detail).__name__] = detail
    assert details["ErrorInfo"].domain == "boatyard.dev"
    reason = details["ErrorInfo"].reason
    assert reason == "TOKEN_REQUIRED" or reason in COMMENTS[name], "the contract must name the reason"
    return caught.value.code(), details


@pytest.mark.parametrize("token", [None, "not-the-token"])
@pytest.mark.parametrize("name", METHODS)
async def test_nobody_gets_in_without_the_token(gateway: tuple[str, str], name: str, token: str | None) -> None:
    code, details = await fail((gateway[0], token), name, {})
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert details["ErrorInfo"].reason == "TOKEN_REQUIRED"


@pytest.mark.parametrize("name", METHODS)
async def test_bad_input_is_refused_field_by_field(gateway: tuple[str, str], name: str) -> None:
    code, details = await fail(gateway, name, BAD.get(name, {}))
    assert (code, details["ErrorInfo"].reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")
    fields = {field.name for field in METHODS[name].input_type.fields}
    for violation in details["BadRequest"].field_violations:
        assert violation.field.partition(".")[0].partition("[")[0] in fields
        assert violation.description
    wrong = set(BAD.get(name, {}))
    assert wrong <= {violation.field for violation in details["BadRequest"].field_violations}, "all at once"


@pytest.mark.parametrize("name", UNKNOWN)
async def test_what_is_not_there_is_named(gateway: tuple[str, str], name: str) -> None:
    fields, reason = UNKNOWN[name]
    code, details = await fail(gateway, name, fields)
    assert (code, details["ErrorInfo"].reason) == (grpc.StatusCode.NOT_FOUND, reason)
    assert details["ResourceInfo"].resource_name in {"nothing", "nobody", "nowhere"}
    assert reason.lower() == details["ResourceInfo"].resource_type.replace(" ", "_") + "_not_found"


def test_every_rpc_that_may_miss_something_is_asked() -> None:
    assert {name for name, comment in COMMENTS.items() if name in METHODS and "NOT_FOUND (" in comment} == set(UNKNOWN)
