"""`boatyard attach`: sends what is typed to an agent's terminal, and shows the terminal's output from the events."""

import asyncio
import os
import signal
import sys
import termios
import tty
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Self

import click
import grpc
from boatyard.execution.v1.execution_pb2 import TerminalSize
from boatyard.gateway.v1 import runtime_pb2

from services.cli import exit_codes, options
from services.cli.clients import Gateway, with_gateway
from services.cli.lookup import execution_id_of
from services.cli.resumed_streams import Outage, execution_events
from services.cli.screen import Screen
from services.common.errors import Unavailable
from services.common.rpc.streaming import conversing

DETACH = b"\x1d"
"""Ctrl-]."""

_READ_BYTES = 16 << 10


@click.command("attach", short_help="Attach to an agent's terminal.")
@options.job_or_execution
@options.raw
@options.as_json
def command(id_: str, raw: bool, as_json: bool) -> int:
    """Attach to the terminal of an agent that was started with `boatyard run --terminal`.

    Shows the terminal's output from its beginning, and sends what you type. Ctrl-] detaches and leaves the agent
    running. When standard input is not a terminal, all of it is sent, and its end does not detach: the output is
    followed until the agent ends. The agent draws on your terminal as it likes, but without --raw it does not reach
    what is outside: the title, the clipboard.
    """
    if as_json:
        raise click.UsageError("attach cannot print JSON: `boatyard logs --json` has the terminal's output")
    screen = Screen(raw=raw, fills_screen=True)

    async def attach(gateway: Gateway) -> bool:
        execution_id = await execution_id_of(gateway, id_)
        with Keyboard(sys.stdin.fileno()) as keyboard:
            return await _attach(gateway, screen, execution_id, keyboard)

    try:
        is_over = with_gateway(attach)
    except Unavailable:
        screen.say(f"the connection broke; the agent goes on: `boatyard attach {id_}` attaches again", style="yellow")
        raise
    if not is_over:
        screen.say(f"detached; the agent is still running: `boatyard attach {id_}` attaches again")
    return exit_codes.SUCCEEDED


class Keyboard:
    """Standard input as a context manager: a terminal is in raw mode inside, and restored afterwards."""

    def __init__(self, descriptor: int) -> None:
        self.is_terminal = os.isatty(descriptor)
        self._descriptor = descriptor
        self._before: list[Any] = []
        self._woken = asyncio.Event()
        self._is_readable = False
        self._is_resized = self.is_terminal

    def __enter__(self) -> Self:
        if self.is_terminal:
            self._before = termios.tcgetattr(self._descriptor)
            tty.setraw(self._descriptor)
            asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, self._resized)
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_terminal:
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)
            asyncio.get_running_loop().remove_signal_handler(signal.SIGWINCH)

    async def requests(self, execution_id: str) -> AsyncGenerator[runtime_pb2.AttachExecutionRequest, None]:
        """Yield the requests: the execution, the window's size, and what is typed until Ctrl-] or the end of input."""
        yield runtime_pb2.AttachExecutionRequest(execution_id=execution_id)
        self._woken.set()
        try:
            while True:
                await self._wake()
                if self._is_resized:
                    self._is_resized = False
                    columns, rows = os.get_terminal_size(self._descriptor)
                    if rows and columns:  # a terminal that nobody sees, or a serial line, has no size
                        yield runtime_pb2.AttachExecutionRequest(size=TerminalSize(rows=rows, columns=columns))
                if not self._is_readable:
                    continue
                self._is_readable = False
                data = os.read(self._descriptor, _READ_BYTES)
                typed, detach, _ = data.partition(DETACH) if self.is_terminal else (data, b"", b"")
                if typed:
                    yield runtime_pb2.AttachExecutionRequest(input=typed)
                if detach or not data:
                    return
        finally:
            asyncio.get_running_loop().remove_reader(self._descriptor)

    async def _wake(self) -> None:
        """Wait until there is something to read, or the size has changed."""
        try:
            asyncio.get_running_loop().add_reader(self._descriptor, self._readable)
        except PermissionError:  # a file, which is always readable
            self._readable()
        await self._woken.wait()
        self._woken.clear()

    def _readable(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        self._is_readable = True
        self._woken.set()

    def _resized(self) -> None:
        self._is_resized = True
        self._woken.set()


async def _attach(gateway: Gateway, screen: Screen, execution_id: str, keyboard: Keyboard) -> bool:
    """Stay attached; return True when the agent has ended, and False when the person has detached."""
    output = asyncio.create_task(_show(gateway, screen, execution_id))
    try:
        ended = await _send(gateway, execution_id, keyboard)
        if ended or not keyboard.is_terminal:
            await output
            return True
        return False
    finally:
        output.cancel()
        await asyncio.gather(output, return_exceptions=True)


async def _send(gateway: Gateway, execution_id: str, keyboard: Keyboard) -> bool:
    """Send what is typed; return True when the agent has ended."""
    try:
        async with (
            aclosing(keyboard.requests(execution_id)) as requests,
            conversing(gateway.runtime.AttachExecution(), requests) as answers,
        ):
            async for answer in answers:
                if answer.ended:
                    return True
    except grpc.aio.AioRpcError as error:
        raise gateway.problem(error) from None
    return False


async def _show(gateway: Gateway, screen: Screen, execution_id: str) -> None:
    async with aclosing(execution_events(gateway, execution_id, Outage(screen.say))) as batches:
        async for batch in batches:
            for event in batch:
                if event.WhichOneof("kind") == "output":
                    screen.output(event.output.data)
