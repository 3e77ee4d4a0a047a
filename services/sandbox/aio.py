"""Sandboxed processes for asyncio: start one, or run one to its end with bounded output and time."""

import asyncio
import contextlib
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from dataclasses import dataclass

from services.sandbox import descriptors
from services.sandbox.errors import OutputLimitError, SandboxTimeoutError
from services.sandbox.launch import Launch, prepare
from services.sandbox.spec import SandboxSpec
from services.sandbox.termination import kill_with_children

_CHUNK = 256 * 1024


@dataclass(frozen=True, slots=True)
class Completed:
    """A process that has ended: its exit code (negative: the signal, tier NONE only), and its output."""

    exit_code: int
    stdout: bytes
    stderr: bytes


@contextlib.asynccontextmanager
async def start(spec: SandboxSpec, *, stdin: int | None = None) -> AsyncIterator[Process]:
    """Start a process; it and all its children are gone when the context is left.

    `stdin` is asyncio's PIPE or a descriptor; None for nothing to read. Its `stdout` and `stderr` are stream readers
    that the caller must drain. The loop must run in the main thread.

    Raises:
        SandboxUnavailableError: there is no sandbox here; the message says how to fix that.
        HeldError: another sandbox has the layers that it asks for.
    """
    with contextlib.ExitStack() as stack:
        launch = await _prepared(spec, stack)
        process = await _spawn(launch, stack.enter_context(descriptors.null_device()) if stdin is None else stdin)
    try:
        yield process
    finally:
        await _end(process)


async def _prepared(spec: SandboxSpec, stack: contextlib.ExitStack) -> Launch:
    """Prepare in a thread, because it may wait for another holder of the same layers that is just ending."""
    preparing = asyncio.create_task(asyncio.to_thread(stack.enter_context, prepare(spec)))
    try:
        return await asyncio.shield(preparing)
    except asyncio.CancelledError:
        await asyncio.wait([preparing])  # otherwise what it opens would never be closed
        raise


async def run(
    spec: SandboxSpec,
    *,
    stdin: bytes = b"",
    max_output: int = 64 * 1024 * 1024,
    timeout: float = 300.0,  # noqa: ASYNC109 - no call is without one
) -> Completed:
    """Run a process to its end.

    `max_output` bounds stdout and stderr in bytes, each; `timeout` is in seconds. A non-zero exit is data, not
    an error.

    Raises:
        SandboxTimeoutError: it took longer than `timeout`; it was ended.
        OutputLimitError: it wrote more than `max_output`; it was ended.
        SandboxUnavailableError: there is no sandbox here; the message says how to fix that.
        HeldError: another sandbox has the layers that it asks for.
    """
    try:
        async with asyncio.timeout(timeout), start(spec, stdin=PIPE if stdin else None) as process:
            return await _communicate(process, stdin, max_output)
    except TimeoutError:
        raise SandboxTimeoutError(f"{_name(spec)} took longer than {timeout:g} s and was ended") from None
    except _OverflowError:
        raise OutputLimitError(f"{_name(spec)} wrote more than {max_output} bytes and was ended") from None


async def _spawn(launch: Launch, stdin: int) -> Process:
    """Complete the start even when the caller is cancelled: asyncio loses a child that is only half started."""
    spawning = asyncio.create_task(
        asyncio.create_subprocess_exec(
            *launch.argv,
            stdin=stdin,
            stdout=PIPE,
            stderr=PIPE,
            env=dict(launch.env),
            cwd=launch.cwd,
            pass_fds=launch.pass_fds,
            start_new_session=True,
            limit=_CHUNK,
        )
    )
    try:
        return await asyncio.shield(spawning)
    except asyncio.CancelledError:
        await _end(await spawning)
        raise


async def _end(process: Process) -> None:
    if process.returncode is None:
        kill_with_children(process.pid)
    # Read both to their ends, which come when every process inside has ended: asyncio waits for them too, and for ever
    # for one whose buffer is full and that nobody reads.
    ends = (_drained(reader) for reader in (process.stdout, process.stderr) if reader is not None)
    await asyncio.shield(asyncio.gather(process.wait(), *ends))
    # Otherwise asyncio warns that it was not closed; there is no public way to do so.
    transport: asyncio.SubprocessTransport = process._transport  # type: ignore[attr-defined]
    transport.close()


async def _drained(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(RuntimeError):  # somebody else is still reading it, so its buffer is empty
        while await reader.read(_CHUNK):
            pass


class _OverflowError(Exception):
    """The process wrote more than the caller accepts."""


def _name(spec: SandboxSpec) -> str:
    return spec.argv[0].decode(errors="replace")


async def _communicate(process: Process, stdin: bytes, max_output: int) -> Completed:
    if process.stdout is None or process.stderr is None:
        raise RuntimeError("the process was started without pipes")
    try:
        async with asyncio.TaskGroup() as group:
            out = group.create_task(_read(process.stdout, max_output))
            err = group.create_task(_read(process.stderr, max_output))
            group.create_task(_feed(process, stdin))
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return Completed(await process.wait(), out.result(), err.result())


async def _read(stream: asyncio.StreamReader, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while chunk := await stream.read(_CHUNK):
        size += len(chunk)
        if size > limit:
            raise _OverflowError
        chunks.append(chunk)
    return b"".join(chunks)


async def _feed(process: Process, content: bytes) -> None:
    if process.stdin is None:
        return
    # A process may end without reading its input.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(content)
        await process.stdin.drain()
    process.stdin.close()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        await process.stdin.wait_closed()
