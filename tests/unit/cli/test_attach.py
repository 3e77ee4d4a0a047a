"""What `boatyard attach` sends of a terminal."""

import os
import pty
import termios
from contextlib import aclosing

from boatyard.gateway.v1 import runtime_pb2

from services.cli.commands.attach import Keyboard


async def sent(rows: int, columns: int) -> list[runtime_pb2.AttachExecutionRequest]:
    """What is sent from a window of that size when somebody types a line and detaches."""
    person, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (rows, columns))
    try:
        with Keyboard(terminal) as keyboard:
            os.write(person, b"ls\r\x1d")
            async with aclosing(keyboard.requests("exec-1")) as requests:
                return [request async for request in requests]
    finally:
        os.close(person)
        os.close(terminal)


async def test_the_windows_size_goes_before_what_is_typed() -> None:
    assert [request.WhichOneof("kind") for request in await sent(24, 80)] == ["execution_id", "size", "input"]


async def test_a_terminal_without_a_size_sends_none() -> None:
    assert [request.WhichOneof("kind") for request in await sent(0, 0)] == ["execution_id", "input"]
