"""`boatyard diff`."""

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

import click
import grpc
from boatyard.gateway.v1 import runtime_pb2

from services.cli import options, shapes
from services.cli.clients import Gateway, with_gateway
from services.cli.lookup import execution_id_of, get_snapshot, get_workspace
from services.cli.screen import Line, Screen
from services.common.errors import NotFound
from services.common.rpc.streaming import streaming

_EXPIRED = "RESULT_EXPIRED"
_STYLES = ((b"+++", "bold"), (b"---", "bold"), (b"diff ", "bold"), (b"@@", "cyan"), (b"+", "green"), (b"-", "red"))


@click.command("diff", short_help="Show a job's changes.")
@options.job_or_execution
@options.as_json
def command(id_: str, as_json: bool) -> None:
    """Show what a job, an execution or a snapshot changed, as a unified diff that `git apply` accepts.

    Of a workspace that its job has left: what differs from the last commit in it, new files included.
    """
    screen = Screen()

    async def show(gateway: Gateway) -> None:
        subject = await _subject(gateway, id_)
        of_workspace = "workspace_id" in subject
        pieces = _of_workspace(gateway, **subject) if of_workspace else _of_result(gateway, screen, **subject)
        async with aclosing(pieces) as chunks:
            if as_json:
                screen.json(shapes.diff(subject, b"".join([chunk async for chunk in chunks])))
            elif screen.out.is_terminal:
                await _show_coloured(screen, chunks)
            else:
                async for chunk in chunks:
                    screen.output(chunk)

    with_gateway(show)


async def _subject(gateway: Gateway, id_: str) -> dict[str, str]:
    """Return which field this id is for: that of an execution, a snapshot or a workspace. Raises NotFound."""
    try:
        return {"execution_id": await execution_id_of(gateway, id_)}
    except NotFound:
        with suppress(NotFound):
            return {"snapshot_id": (await get_snapshot(gateway, id_)).snapshot_id}
        with suppress(NotFound):
            return {"workspace_id": (await get_workspace(gateway, id_)).workspace_id}
        raise


async def _of_workspace(gateway: Gateway, workspace_id: str) -> AsyncGenerator[bytes, None]:
    request = runtime_pb2.ReadWorkspaceDiffRequest(workspace_id=workspace_id)
    try:
        async with streaming(gateway.runtime.ReadWorkspaceDiff(request)) as answers:
            async for answer in answers:
                yield answer.data
    except grpc.aio.AioRpcError as error:
        raise gateway.problem(error) from None


async def _of_result(gateway: Gateway, screen: Screen, **subject: str) -> AsyncGenerator[bytes, None]:
    request = runtime_pb2.ReadDiffRequest(**subject)
    try:
        async with streaming(gateway.runtime.ReadDiff(request)) as answers:
            async for answer in answers:
                yield answer.data
    except grpc.aio.AioRpcError as error:
        problem = gateway.problem(error)
        if problem.reason != _EXPIRED:
            raise problem from None
        yield await _stored(gateway, screen, request.execution_id)


async def _stored(gateway: Gateway, screen: Screen, execution_id: str) -> bytes:
    """Return the stored part of a diff whose result has been removed, and say how much of it that is."""
    request = runtime_pb2.GetExecutionRequest(execution_id=execution_id)
    output = (await gateway.ask(gateway.runtime.GetExecution(request))).execution.output
    part = "only the beginning" if output.diff_truncated else "all"
    lossy = ", with U+FFFD for what is not UTF-8" if output.diff_is_lossy else ""
    screen.say(f"the result has been removed; {part} of its diff was stored{lossy}:")
    return output.diff.encode()


async def _show_coloured(screen: Screen, chunks: AsyncGenerator[bytes, None]) -> None:
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            screen.show(_coloured(line))
    if rest:
        screen.show(_coloured(rest))


def _coloured(line: bytes) -> Line:
    style = next((style for prefix, style in _STYLES if line.startswith(prefix)), "")
    return Line(line.decode("utf-8", "replace").expandtabs(), style)
