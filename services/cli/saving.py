"""Saves what a gateway streams."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import click
import grpc

from services.cli.clients import Gateway, with_gateway
from services.cli.lookup import execution_id_of
from services.cli.screen import Screen
from services.common.rpc.streaming import streaming

Read = Callable[[Gateway, str], Any]
"""Makes the call that streams something of an execution, as messages with `data`."""


def save(screen: Screen, id_: str, output: Path | None, read: Read) -> int:
    """Write something of an execution, or of a job's last one, to a file or to standard output; return its size.

    The file appears when all of it is there. Raises click.ClickException.
    """

    async def write(gateway: Gateway) -> int:
        execution_id, size = await execution_id_of(gateway, id_), 0
        try:
            async with streaming(read(gateway, execution_id)) as answers:
                with _appearing(output) as file:
                    async for answer in answers:
                        size += len(answer.data)
                        screen.output(answer.data) if file is None else file.write(answer.data)
        except grpc.aio.AioRpcError as error:
            raise gateway.problem(error) from None
        return size

    try:
        return with_gateway(write)
    except OSError as error:
        raise click.ClickException(f"cannot write {output}: {error.strerror}") from None


@contextlib.contextmanager
def _appearing(path: Path | None) -> Iterator[IO[bytes] | None]:
    """Open a file that appears under its name when the block ends without an error; None for none."""
    if path is None:
        yield None
        return
    if path.exists() and not path.is_file():  # such as /dev/stdout, or a pipe
        with path.open("wb") as there:
            yield there
        return
    aside = path.with_name(f".{path.name[:100]}.{os.getpid()}")
    try:
        with aside.open("xb") as new:
            yield new
        aside.rename(path)
    finally:
        aside.unlink(missing_ok=True)
