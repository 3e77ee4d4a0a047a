"""The runner's end of the tools: their process in the sandbox is started, called, and started again when it dies.

What comes back is not trusted: programs in the sandbox have the tools' own rights, and could write in their place.
"""

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from services.execution.egress.child import Egress, record
from services.execution.eventlog import EventWriter, Stream
from services.execution.model import EndVerification
from services.execution.rundir import RunDirectory
from services.execution.runner import agent
from services.execution.runner.group import Group
from services.execution.runner.pump import Pump
from services.sandbox.spec import SandboxSpec

MAX_STARTS = 6
"""Of the tool process, in one life of a runner, the first included."""

_READY_WITHIN_S = 60.0
_ANSWER_WITHIN_S = 60.0
_SPARE_S = 30.0
_MAX_ANSWER = 4 << 20
_DEFAULT_BASH_S = 120


class HandsLostError(Exception):
    """The tool process ended, or said what it never says."""


class NoHandsError(Exception):
    """There are no tools, and no more will be started; the text says why."""


class Hands:
    """One tool process at a time. Its error output is the execution's own."""

    def __init__(
        self, spec: SandboxSpec, run: RunDirectory, pump: Pump, writer: EventWriter, group: Group | None
    ) -> None:
        self._spec = spec
        self._run = run
        self._pump = pump
        self._writer = writer
        self._group = group
        self._program: agent.Agent | None = None
        self._calls = -1
        self._buffer = bytearray()
        self._starts = 0
        self._number = 0
        self.processes_left = 0
        """After `end`: what could not be ended."""
        self.verified_by: EndVerification | None = None
        """After `end`: what told that nothing was left."""

    def start(self) -> None:
        """Start the process, from the main thread. Raises SandboxUnavailableError, OSError."""
        reading, self._calls = os.pipe()
        try:
            self._program = agent.start_on(self._spec, reading, self._run, self._group)
        except BaseException:
            os.close(self._calls)
            raise
        finally:
            os.close(reading)
        if self._group is not None:
            self._group.leave()
        os.set_blocking(self._calls, False)
        self._buffer.clear()
        self._starts += 1
        loop, program = asyncio.get_running_loop(), self._program
        loop.add_reader(program.stderr, self._hear, program)
        if program.status is not None:
            loop.add_reader(program.status, self._learn, program)
        if program.egress is not None:
            loop.add_reader(program.egress.decisions, self._record, program.egress)

    async def ready(self) -> None:
        """Wait until the process takes calls. Raises NoHandsError, with what it complains of."""
        try:
            async with asyncio.timeout(_READY_WITHIN_S):
                if (await self._read()).get("ready") is True:
                    return
        except (HandsLostError, TimeoutError):
            pass
        self.end()
        complaint = self._pump.complaint.decode(errors="replace").strip()
        raise NoHandsError(complaint or "the sandbox ended before the tools began")

    async def call(self, tool: str, given: Mapping[str, Any]) -> tuple[str, bool]:
        """Have a tool called; return what it answers, and whether that is an error. Raises NoHandsError."""
        self._number += 1
        try:
            async with asyncio.timeout(_patience(tool, given)):
                await self._write({"id": self._number, "tool": tool, "input": given})
                return self._checked(await self._read())
        except TimeoutError:
            trouble = "the tools did not answer in time, so their process was ended"
        except HandsLostError as error:
            trouble = f"the tools' process ended during this call ({error}); memory may have run out, or it was killed"
        self.end()
        if self._starts >= MAX_STARTS:
            raise NoHandsError(f"the tools' process was lost {self._starts} times; the last time: {trouble}")
        self.start()
        await self.ready()
        return f"{trouble}. It was started anew: what ran is gone, and the shell's state with it; files are there", True

    def end(self) -> None:
        """End the process, and all that it has started."""
        program = self._program
        if program is None:
            return
        self._program = None
        loop = asyncio.get_running_loop()
        loop.remove_reader(program.stdout)
        loop.remove_reader(program.stderr)
        if program.status is not None:
            loop.remove_reader(program.status)
        if program.egress is not None:
            loop.remove_reader(program.egress.decisions)
        os.close(self._calls)
        self.processes_left += program.finish()
        if program.egress is not None:
            record(self._writer, program.egress.close())
        self.verified_by = program.verified_by
        self._pump.drain(program.stderr, Stream.STDERR)
        self._pump.end()

    def root(self) -> int | None:
        """The process of which those of the tools descend: see Agent.root."""
        return None if self._program is None else self._program.root()

    def _checked(self, answer: Mapping[str, Any]) -> tuple[str, bool]:
        output, is_error = answer.get("output"), answer.get("is_error")
        if answer.get("id") != self._number or not isinstance(output, str) or not isinstance(is_error, bool):
            raise HandsLostError("it answered what was not asked")
        return output, is_error

    def _hear(self, program: agent.Agent) -> None:
        if self._pump.receive(program.stderr, Stream.STDERR) == 0:
            asyncio.get_running_loop().remove_reader(program.stderr)
        self._pump.flush()

    def _record(self, egress: Egress) -> None:
        decisions, more = egress.read()
        record(self._writer, decisions)
        if not more:
            asyncio.get_running_loop().remove_reader(egress.decisions)

    def _learn(self, program: agent.Agent) -> None:
        if not program.read_status() and program.status is not None:
            asyncio.get_running_loop().remove_reader(program.status)

    async def _write(self, message: Mapping[str, Any]) -> None:
        data = memoryview(json.dumps(message).encode() + b"\n")
        loop = asyncio.get_running_loop()
        while data:
            try:
                data = data[os.write(self._calls, data) :]
            except BlockingIOError:
                await _once(self._calls, loop.add_writer, loop.remove_writer)
            except BrokenPipeError:
                raise HandsLostError("it no longer listens") from None

    async def _read(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        while b"\n" not in self._buffer:
            if self._program is None or len(self._buffer) > _MAX_ANSWER:
                raise HandsLostError("it said too much")
            try:
                chunk = os.read(self._program.stdout, 256 * 1024)
            except BlockingIOError:
                await _once(self._program.stdout, loop.add_reader, loop.remove_reader)
                continue
            if not chunk:
                raise HandsLostError("it closed its output")
            self._buffer += chunk
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer[:] = rest
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise HandsLostError("it said what is no answer")
        return answer


async def _once(fd: int, add: Callable[..., None], remove: Callable[[int], object]) -> None:
    """Wait until a descriptor is ready, for reading or for writing."""
    ready = asyncio.get_running_loop().create_future()

    def tell() -> None:
        if not ready.done():
            ready.set_result(None)

    add(fd, tell)
    try:
        await ready
    finally:
        remove(fd)


def _patience(tool: str, given: Mapping[str, Any]) -> float:
    """How long a call may take at most: the tools keep their own times, and this is for tools that do not."""
    if tool != "bash":
        return _ANSWER_WITHIN_S
    seconds = given.get("timeout_seconds", _DEFAULT_BASH_S)
    return (min(seconds, 600) if isinstance(seconds, int | float) else _DEFAULT_BASH_S) + _SPARE_S
