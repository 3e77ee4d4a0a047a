"""What a node's refusal is to the gateway's own caller."""

from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import grpc
from grpc import aio

from services.common.rpc.status import service_error

T = TypeVar("T")


async def answer_of(call: Awaitable[T]) -> T:
    """Return a node's answer, or raise as `node_refusals` does."""
    with node_refusals():
        return await call


@contextmanager
def node_refusals() -> Iterator[None]:
    """Pass a node's refusal on to the caller; a node that is away is reported in the same way for every RPC."""
    try:
        yield
    except aio.AioRpcError as error:
        if error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}:
            raise
        raise service_error(error) from error
