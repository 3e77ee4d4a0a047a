"""`boatyard artifact`."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import click
import grpc
from boatyard.gateway.v1 import runtime_pb2

from services.cli import options, shapes
from services.cli.clients import Gateway, with_gateway
from services.cli.lookup import execution_id_of
from services.cli.screen import Screen
from services.common.rpc.streaming import streaming


@click.command("artifact", short_help="Read or save a file that was kept of a job.")
@options.job_or_execution
@click.argument("name", type=options.TEXT)
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write it to this file.")
@options.as_json
def command(id_: str, name: str, output: Path | None, as_json: bool) -> None:
    """Write a file that was kept of the last attempt of a job, or of an execution, to standard output or to a file.

    `boatyard artifacts ID` lists their names. With -o the file appears when all of it is there.
    """
    if as_json and output is None:
        raise click.UsageError("--json says what was written: it needs -o FILE")
    screen = Screen()

    async def read(gateway: Gateway) -> int:
        request = runtime_pb2.ReadArtifactRequest(execution_id=await execution_id_of(gateway, id_), name=name)
        size = 0
        try:
            async with streaming(gateway.runtime.ReadArtifact(request)) as answers:
                with _appearing(output) as file:
                    async for answer in answers:
                        size += len(answer.data)
                        screen.output(answer.data) if file is None else file.write(answer.data)
        except grpc.aio.AioRpcError as error:
            raise gateway.problem(error) from None
        return size

    try:
        size = with_gateway(read)
    except OSError as error:
        raise click.ClickException(f"cannot write {output}: {error.strerror}") from None
    if as_json:
        screen.json(shapes.saved_artifact(id_, name, str(output), size))


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
