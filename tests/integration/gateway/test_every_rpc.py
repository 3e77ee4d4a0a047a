"""Every RPC of every service, by descriptor, called by everybody with anything: only documented statuses come back.

The callers are nobody, a wrong token, each role, one of a single project, and on nodes the cell. What is sent are
messages near the bounds of their rules, and bytes that are no message. A failure names its seed.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from importlib import import_module
from random import Random

import grpc
import pytest
import pytest_asyncio
from boatyard.access.v1 import access_pb2
from boatyard.gateway.v1.auth_pb2 import CreateTokenRequest
from boatyard.gateway.v1.auth_pb2_grpc import TokenServiceStub
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import Default

from services.common.rpc.channel import open_channel
from services.common.rpc.status import service_error
from services.gateway.values.principal import Role
from tests.kit import contract
from tests.kit.requests import request
from tests.kit.services import Services, running_services

NODES = ("workspace", "git", "execution")
OF_US = {"boatyard.hook.v1.HookCallbackService"}
"""Services that others serve and we call."""

STREAM_SECONDS = 0.5
"""How long to listen to a stream, and to wait for what waits."""
WAITS = {"WaitExecution", "ClaimJob"}
AT_ONCE = 100

DOCUMENTED = {
    method.name: set(contract.reasons_in(f"{method.comment}\n{method.service_comment}")) - {("INTERNAL", "INTERNAL")}
    for method in contract.methods()
    if f"{method.file.package}.{method.service}" not in OF_US
}


@dataclass
class House:
    """All services of a cell, with a channel for each caller of each."""

    gateway: dict[str, grpc.aio.Channel] = field(default_factory=dict)
    nodes: dict[str, dict[str, grpc.aio.Channel]] = field(default_factory=dict)

    def callers(self, method: MethodDescriptor) -> Iterator[tuple[str, grpc.aio.Channel]]:
        """Yield the callers of a method's service with their channels."""
        package = method.full_name.split(".")[1]
        if package in {"metrics", "readiness"}:
            for channels in self.nodes.values():
                yield from channels.items()
        else:
            yield from (self.nodes[package] if package in NODES else self.gateway).items()


@pytest_asyncio.fixture(scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    # What is admitted here is not to be done.
    async with (
        running_services(tmp_path_factory.mktemp("house"), BOATYARD_GATEWAY_MAX_JOBS="0") as services,
        AsyncExitStack() as stack,
    ):

        async def channel(name: str, token: str | None) -> grpc.aio.Channel:
            return await stack.enter_async_context(open_channel(services.address(name), token))

        house = House()
        for name in NODES:
            tokens = {"nobody": None, "wrong": "boatyard_wrong", "cell": services.home.cell_token()}
            house.nodes[name] = {caller: await channel(name, token) for caller, token in tokens.items()}
        tokens = {"nobody": None, "wrong": "boatyard_wrong", **await tokens_of_roles(services)}
        house.gateway = {caller: await channel("gateway", token) for caller, token in tokens.items()}
        yield house


async def tokens_of_roles(services: Services) -> dict[str, str]:
    """Make a token of each role, and one for a single project; return their secrets."""
    wanted = {
        **{role.value: {"role": f"ROLE_{role}"} for role in Role},
        "one project's": {"role": "ROLE_OPERATOR", "project_ids": ["default"]},
    }
    async with open_channel(services.address("gateway"), services.home.admin_token()) as channel:
        stub = TokenServiceStub(channel)
        return {
            name: (await stub.CreateToken(CreateTokenRequest(token=token))).secret for name, token in wanted.items()
        }


def messages(method: MethodDescriptor, seed: int) -> Iterator[bytes]:
    """Yield a request, and bytes that may be none."""
    random = Random(f"{method.full_name}/{seed}")
    data = request(method.input_type, seed).SerializeToString()
    yield data
    broken = bytearray(data or b"\x0a\x05")
    for _ in range(random.choice((1, 1, 4))):
        broken[random.randrange(len(broken))] = random.randrange(256)
    yield random.choice((bytes(broken), data[: len(data) // 2] + b"\x0a", random.randbytes(16)))


async def ended(
    channel: grpc.aio.Channel, method: MethodDescriptor, data: bytes, *, is_refused: bool
) -> tuple[str, str]:
    """Call a method, by whatever arity; return its status and reason, and ("OK", "") for what goes on."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    goes_on = not is_refused and (method.server_streaming or method.name in WAITS)
    call = channel.unary_stream(path)(data, timeout=STREAM_SECONDS if goes_on else 60)
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as error:
        if goes_on and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return "OK", ""
        refusal = service_error(error)
        return error.code().name, refusal.reason
    finally:
        call.cancel()
    return "OK", ""


def refusals(method: MethodDescriptor, caller: str) -> set[str]:
    """Return the reasons of which one must come, whatever is sent; none where the caller may call the method."""
    if caller in {"nobody", "wrong"}:
        return {"TOKEN_REQUIRED", "CELL_TOKEN_REQUIRED", "TOO_MANY_FAILURES"}
    required = method.GetOptions().Extensions[access_pb2.required_role]
    if required and caller in set(Role) and not Role(caller).may(Role(access_pb2.Role.Name(required)[5:])):
        return {"ROLE_REQUIRED"}
    return set()


async def wrong_outcomes(house: House, method: MethodDescriptor, seeds: range, room: asyncio.Semaphore) -> list[str]:
    async def tried(caller: str, channel: grpc.aio.Channel, seed: int, data: bytes) -> str | None:
        expected = refusals(method, caller)
        async with room:
            outcome = await ended(channel, method, data, is_refused=bool(expected))
        is_documented = outcome == ("OK", "") or outcome in DOCUMENTED[method.full_name]
        if is_documented and (not expected or outcome[1] in expected):
            return None
        return f"{method.full_name} by {caller}, seed {seed}: {' '.join(outcome)}"

    found = await asyncio.gather(
        *(
            tried(caller, channel, seed, data)
            for caller, channel in house.callers(method)
            for seed in seeds
            for data in list(messages(method, seed))[: 1 if refusals(method, caller) else None]  # nobody reads it
        )
    )
    return sorted({each for each in found if each is not None})


def methods() -> list[MethodDescriptor]:
    for file in contract.files():
        import_module(file.name.replace("/", ".").removesuffix(".proto") + "_pb2")
    return [Default().FindMethodByName(name) for name in DOCUMENTED]


async def test_every_rpc_answers_everybody_as_documented(house: House) -> None:
    room = asyncio.Semaphore(AT_ONCE)
    wrong = await asyncio.gather(*(wrong_outcomes(house, method, range(1), room) for method in methods()))
    assert "\n".join(each for some in wrong for each in some) == ""


@pytest.mark.slow
@pytest.mark.parametrize("method", methods(), ids=lambda method: method.full_name.removeprefix("boatyard."))
async def test_many_calls_of_every_rpc_are_answered_as_documented(house: House, method: MethodDescriptor) -> None:
    assert "\n".join(await wrong_outcomes(house, method, range(1, 21), asyncio.Semaphore(AT_ONCE))) == ""
