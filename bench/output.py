"""Output, start and memory of executions at the real service, each against the bare thing, in one run.

output   bytes a second at WatchEvents, from a program in the sandbox through runner, event log and gRPC to a client
         in a process of its own; against the same program on a pipe. Wanted: >= 0.4 for a program that makes what
         it writes. The second program only writes: it shows how far it is to what the machine's memory can do
start    StartExecution called -> first byte at the client; against bwrap alone -> first byte    (wanted: <= 10)
memory   proportional set size of an idle execution: runner and sandbox                          (wanted: < 25 MB)
"""

import asyncio
import contextlib
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from boatyard.execution.v1 import execution_pb2 as pb
from boatyard.execution.v1.execution_pb2_grpc import ExecutionServiceStub
from boatyard.workspace.v1 import layout_pb2

from services.common.rpc.channel import open_channel
from services.common.sandbox import environment
from services.common.sandbox.launch import prepare
from services.common.sandbox.spec import SandboxSpec
from services.common.settings import Home

ROUNDS = 5
PROGRAMS = {
    "numbers, formatted one by one (seq)": "seq 1 30000000",
    "one line over and over (yes)": f"yes {'x' * 99} | head -c 400000000",
}
QUIET = "echo ready; exec sleep 600"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.asynccontextmanager
async def service(directory: Path) -> AsyncIterator[ExecutionServiceStub]:
    home, workspace = directory / "home", directory / "workspace"
    workspace.mkdir()
    address = f"127.0.0.1:{free_port()}"
    settings = {
        "BOATYARD_HOME": str(home),
        "BOATYARD_EXECUTION_LISTEN": address,
        "BOATYARD_EXECUTION_MAX_EXECUTIONS": "64",
        "BOATYARD_LOG_LEVEL": "ERROR",
    }
    process = subprocess.Popen([sys.executable, "-m", "services.execution"], env=os.environ | settings)
    try:
        async with open_channel(address, Home(home).cell_token()) as channel:
            stub = ExecutionServiceStub(channel)
            await stub.ListExecutions(pb.ListExecutionsRequest(), wait_for_ready=True, timeout=30)
            yield stub
    finally:
        process.terminate()
        process.wait()


class Executions:
    def __init__(self, stub: ExecutionServiceStub, workspace: Path) -> None:
        self.stub = stub
        self.layout = layout_pb2.Layout(path=bytes(workspace))
        self.count = 0

    async def start(self, line: str) -> str:
        self.count += 1
        execution_id = f"bench-{self.count}"
        command = pb.CommandEngine(argv=[b"/bin/sh", b"-c", line.encode()])
        spec = pb.ExecutionSpec(purpose=pb.ExecutionSpec.PURPOSE_AGENT, layout=self.layout, command=command)
        await self.stub.StartExecution(pb.StartExecutionRequest(execution_id=execution_id, spec=spec))
        return execution_id

    async def output(self, execution_id: str, first: bool = False) -> int:
        """Bytes of all output, or of the first that came."""
        total = 0
        call = self.stub.WatchEvents(pb.WatchEventsRequest(execution_id=execution_id, follow=True))
        async for message in call:
            total += sum(len(event.output.data) for event in message.events)
            if first and total:
                call.cancel()
                break
        return total


def bare_output(line: str) -> tuple[int, float]:
    began = time.perf_counter()
    process = subprocess.Popen(["/bin/sh", "-c", line], stdout=subprocess.PIPE, bufsize=0)
    total = 0
    while chunk := os.read(process.stdout.fileno(), 64 * 1024):
        total += len(chunk)
    process.wait()
    process.stdout.close()
    return total, time.perf_counter() - began


def bare_start() -> float:
    """Seconds from spawning bwrap, with the sandbox that an execution gets, to its program's first byte."""
    spec = SandboxSpec((b"/bin/sh", b"-c", b"echo ready"), Path("/tmp"), environment=environment.base())
    with prepare(spec) as launch:
        began = time.perf_counter()
        process = subprocess.Popen(
            launch.argv, env=launch.env, cwd=launch.cwd, pass_fds=launch.pass_fds, stdout=subprocess.PIPE, bufsize=0
        )
        os.read(process.stdout.fileno(), 1)
        took = time.perf_counter() - began
    process.wait()
    process.stdout.close()
    return took


def pss_of(pids: list[int]) -> float:
    """Proportional set size of some processes, in MB."""
    texts = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
    return sum(int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1]) for text in texts) / 1024


def tree(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(found for child in children for found in tree(int(child)))]


async def bench_output(executions: Executions) -> None:
    for name, line in PROGRAMS.items():
        bare, served = [], []
        for _ in range(ROUNDS):
            size, took = await asyncio.to_thread(bare_output, line)
            bare.append(size / took / 1e6)
            began = time.perf_counter()
            seen = await executions.output(await executions.start(line))
            served.append(size / (time.perf_counter() - began) / 1e6)
            assert seen == size, f"{seen} bytes of {size} arrived"
        pipe, ours = statistics.median(bare), statistics.median(served)
        print(f"output   {name}: {ours:.0f} MB/s, bare pipe {pipe:.0f} MB/s, ratio {ours / pipe:.2f}")


async def bench_start(executions: Executions) -> None:
    bare, ours = [], []
    for _ in range(2 * ROUNDS):
        await asyncio.sleep(1)  # one at a time, as people start them; a burst is not what is measured
        bare.append(bare_start())
        began = time.perf_counter()
        await executions.output(await executions.start("echo ready"), first=True)
        ours.append(time.perf_counter() - began)
    wrap, start = statistics.median(bare) * 1e3, statistics.median(ours) * 1e3
    print(f"start    {start:.1f} ms to the first byte, bare bwrap {wrap:.1f} ms, ratio {start / wrap:.1f}")


async def bench_memory(executions: Executions, home: Path) -> None:
    execution_id = await executions.start(QUIET)
    await executions.output(execution_id, first=True)
    locks = Path("/proc/locks").read_text()
    inode = (home / "execution" / "runs" / execution_id / "lock").stat().st_ino
    runner = int(re.search(rf"POSIX\s+ADVISORY\s+WRITE\s+(\d+)\s+\S+:{inode}\s", locks)[1])
    print(f"memory   {pss_of(tree(runner)):.1f} MB for an idle execution, {pss_of([runner]):.1f} of it the runner")
    await executions.stub.StopExecution(pb.StopExecutionRequest(execution_id=execution_id))
    await executions.stub.WaitExecution(pb.WaitExecutionRequest(execution_id=execution_id))


async def main() -> None:
    directory = Path(tempfile.mkdtemp(prefix="boatyard-bench-"))
    try:
        async with service(directory) as stub:
            executions = Executions(stub, directory / "workspace")
            await bench_output(executions)
            await bench_start(executions)
            await bench_memory(executions, directory / "home")
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    asyncio.run(main())
