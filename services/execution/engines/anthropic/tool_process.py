"""The runner's end of the tools: it starts their process in the sandbox, calls it, and restarts it when it dies.

Answers are not trusted: programs in the sandbox have the same rights as the tools, and could write in their place.
"""

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from services.common.untrusted_json import parse_json
from services.execution.cgroups.group import ControlGroup
from services.execution.egress.child import Egress, record
from services.execution.eventlog import EventWriter, Stream
from services.execution.model import EndVerification
from services.execution.processes import agent
from services.execution.processes.pump import Pump
from services.execution.rundir.directory import RunDirectory
from services.sandbox.spec import SandboxSpec

MAX_STARTS = 6
"""How often one runner starts the tool process at most, including the first time."""

_READY_WITHIN_S = 60.0
_ANSWER_WITHIN_S = 60.0
_SPARE_S = 30.0
_MAX_ANSWER = 4 << 20
_PUSH_S = 0.5
_DEFAULT_BASH_S = 120


class ToolProcessLostError(Exception):
    """The tool process ended, or wrote something that is not an answer."""


class NoToolProcessError(Exception):
    """There is no tool process, and no more will be started; the text says why."""


class ToolProcess:
    """One tool process at a time. Its standard error becomes the execution's."""

    def __init__(
        self, spec: SandboxSpec, run: RunDirectory, pump: Pump, writer: EventWriter, group: ControlGroup | None
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
        """After `end`: how many processes could not be ended."""
        self.verified_by: EndVerification | None = None
        """After `end`: how it was verified that no process was left."""

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
        loop.add_reader(program.stderr, self._receive_errors, program)
        if program.status is not None:
            loop.add_reader(program.status, self._read_status, program)
        if program.egress is not None:
            loop.add_reader(program.egress.decisions, self._record_decisions, program.egress)

    async def ready(self) -> None:
        """Wait until the process takes calls. Raises NoToolProcessError, with the complaint of the process."""
        try:
            async with asyncio.timeout(_READY_WITHIN_S):
                if (await self._read()).get("ready") is True:
                    return
        except (ToolProcessLostError, TimeoutError):
            pass
        self.end()
        complaint = self._pump.complaint.decode(errors="replace").strip()
        raise NoToolProcessError(complaint or "the sandbox ended before the tools began")

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> tuple[str, bool]:
        """Call a tool; return its answer, and whether that is an error. Raises NoToolProcessError."""
        self._number += 1
        try:
            async with asyncio.timeout(_call_timeout(tool, arguments)):
                await self._write({"id": self._number, "tool": tool, "input": arguments})
                return self._check_answer(await self._read())
        except TimeoutError:
            failure = "the tools did not answer in time, so their process was ended"
        except ToolProcessLostError as error:
            failure = f"the tools' process ended during this call ({error}); memory may have run out, or it was killed"
        self.end()
        if self._starts >= MAX_STARTS:
            raise NoToolProcessError(f"the tools' process was lost {self._starts} times; the last time: {failure}")
        self.start()
        await self.ready()
        return f"{failure}. It was started anew: what ran is gone, and the shell's state with it; files are there", True

    def end(self) -> None:
        """End the process, and all processes that it has started."""
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
        """Return the process from which those of the tools descend: see Agent.root."""
        return None if self._program is None else self._program.root()

    def _check_answer(self, answer: Mapping[str, Any]) -> tuple[str, bool]:
        output, is_error = answer.get("output"), answer.get("is_error")
        if answer.get("id") != self._number or not isinstance(output, str) or not isinstance(is_error, bool):
            raise ToolProcessLostError("it answered what was not asked")
        return output, is_error

    def _receive_errors(self, program: agent.Agent) -> None:
        if not self._writer.push():  # it waits, as long as the log has no room for what it has written before
            loop = asyncio.get_running_loop()
            loop.remove_reader(program.stderr)
            loop.call_later(_PUSH_S, self._listen_again, program)
            return
        if self._pump.receive(program.stderr, Stream.STDERR) == 0:
            asyncio.get_running_loop().remove_reader(program.stderr)
        self._pump.flush()

    def _listen_again(self, program: agent.Agent) -> None:
        if self._program is program:
            asyncio.get_running_loop().add_reader(program.stderr, self._receive_errors, program)

    def _record_decisions(self, egress: Egress) -> None:
        decisions, more = egress.read()
        record(self._writer, decisions)
        if not more:
            asyncio.get_running_loop().remove_reader(egress.decisions)

    def _read_status(self, program: agent.Agent) -> None:
        if not program.read_status() and program.status is not None:
            asyncio.get_running_loop().remove_reader(program.status)

    async def _write(self, message: Mapping[str, Any]) -> None:
        data = memoryview(json.dumps(message).encode() + b"\n")
        loop = asyncio.get_running_loop()
        while data:
            try:
                data = data[os.write(self._calls, data) :]
            except BlockingIOError:
                await _wait_ready(self._calls, loop.add_writer, loop.remove_writer)
            except BrokenPipeError:
                raise ToolProcessLostError("it no longer listens") from None

    async def _read(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        while b"\n" not in self._buffer:
            if self._program is None or len(self._buffer) > _MAX_ANSWER:
                raise ToolProcessLostError("it said too much")
            try:
                chunk = os.read(self._program.stdout, 256 * 1024)
            except BlockingIOError:
                await _wait_ready(self._program.stdout, loop.add_reader, loop.remove_reader)
                continue
            if not chunk:
                raise ToolProcessLostError("it closed its output")
            self._buffer += chunk
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer[:] = rest
        try:
            answer = parse_json(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ToolProcessLostError("it said what is no answer")
        return answer


async def _wait_ready(fd: int, add: Callable[..., None], remove: Callable[[int], object]) -> None:
    """Wait until a descriptor is ready for reading or for writing."""
    ready = asyncio.get_running_loop().create_future()

    def set_ready() -> None:
        if not ready.done():
            ready.set_result(None)

    add(fd, set_ready)
    try:
        await ready
    finally:
        remove(fd)


def _call_timeout(tool: str, arguments: Mapping[str, Any]) -> float:
    """Return the seconds that a call may take: tools enforce their own timeouts, and this is for when they fail to."""
    if tool != "bash":
        return _ANSWER_WITHIN_S
    seconds = arguments.get("timeout_seconds", _DEFAULT_BASH_S)
    return (min(seconds, 600) if isinstance(seconds, int | float) else _DEFAULT_BASH_S) + _SPARE_S
