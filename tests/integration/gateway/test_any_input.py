"""Whatever a caller sends, the gateway answers with a status of the contract: INTERNAL is a fault of ours.

On PostgreSQL, which refuses more than SQLite does: NUL in a text, numbers out of range, texts where numbers belong.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.common.rpc.channel import open_channel
from tests.kit.gateway import METHODS, answers, running_gateway

FINE = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNAVAILABLE,  # of the node services that are not there
}

words = st.sampled_from(
    [
        "",
        "default",
        "a",
        "b",
        "task",
        "command",
        "No",
        "\0",
        "é\n",
        "x" * 300,
        "https://example.com/p",
        "/srv/p",
        "WzFd",
    ]
)
texts = words | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
integers = st.sampled_from([0, 1, 2, -1, 99, 2**31 - 1, -(2**31)])
# Enums of proto3 are open: any number arrives.
SCALARS: dict[int, st.SearchStrategy] = {
    FieldDescriptor.TYPE_STRING: texts,
    FieldDescriptor.TYPE_BYTES: words.map(str.encode) | st.binary(max_size=8),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_ENUM: st.integers(-1, 4),
    FieldDescriptor.TYPE_INT32: integers,
    FieldDescriptor.TYPE_INT64: integers | st.sampled_from([2**63 - 1, -(2**63)]),
    FieldDescriptor.TYPE_DOUBLE: st.floats(),
}


@st.composite
def message_of(draw: st.DrawFn, descriptor: Descriptor, depth: int = 0) -> Message:
    """Draw any message of a type, with some of its fields."""
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if depth > 4 or not draw(st.booleans()):
            continue
        target = getattr(message, field.name)
        if field.message_type and field.message_type.GetOptions().map_entry:
            target.update(draw(st.dictionaries(texts, texts, max_size=2)))
        elif field.message_type and field.is_repeated:
            target.extend(draw(st.lists(message_of(field.message_type, depth + 1), max_size=2)))
        elif field.message_type:
            target.CopyFrom(draw(message_of(field.message_type, depth + 1)))
            target.SetInParent()
        elif field.is_repeated:
            target.extend(draw(st.lists(SCALARS[field.type], max_size=3)))
        else:
            setattr(message, field.name, draw(SCALARS[field.type]))
    return message


@pytest_asyncio.fixture(scope="module")
async def channel(tmp_path_factory: pytest.TempPathFactory, postgres_server) -> AsyncIterator[grpc.aio.Channel]:
    directory: Path = tmp_path_factory.mktemp("gateway")
    with running_gateway(
        directory,
        BOATYARD_DATABASE_URL=postgres_server.get_uri(),
        BOATYARD_GATEWAY_MAX_JOBS="0",  # what is admitted here is not to be done
    ) as (address, token):
        async with open_channel(address, token) as channel:
            yield channel


async def status(channel: grpc.aio.Channel, name: str, request: Message) -> grpc.StatusCode:
    try:
        await answers(channel, METHODS[name], request)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
async def test_any_input_gets_an_answer_of_the_contract(
    channel: grpc.aio.Channel, name: str, data: st.DataObject
) -> None:
    request = data.draw(message_of(METHODS[name].input_type))
    assert await status(channel, name, request) in FINE
