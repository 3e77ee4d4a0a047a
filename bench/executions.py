"""Executions at the real service, each figure against the bare thing, in one run. Parts may be named as arguments.

output    bytes a second at WatchEvents, from a program in the sandbox through runner, redaction, event log and gRPC to
          a client in a process of its own; against the same program on a pipe; each from its first byte to its last,
          for what comes before is part of `start`. Wanted: >= 0.4 for a program that makes what it writes. The second
          program only writes: it shows how far it is to what the machine's memory can do
viewers   the same for 1, 10 and 50 viewers of one execution, one of 50 stalled, and what the service's memory grew by
          (wanted: < 64 MB)
start     StartExecution called -> first byte at the client; against bwrap alone -> first byte    (wanted: <= 10)
stop      StopExecution without grace -> its tree, of 40 that ignore SIGTERM and left their session, is gone
memory    proportional set size of an idle execution: runner and sandbox (wanted: < 25 MB; a model's: bench/loop.py)
many      200 executions started at once: until all run, and until all have ended
finished  memory of the service after so many that ended, and its slope
restart   kill -9 with 50 running -> the next life of the service answers and has found them all
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
from google.protobuf.duration_pb2 import Duration

from services.common.rpc.channel import open_channel
from services.common.sandbox import environment
from services.common.sandbox.launch import prepare
from services.common.sandbox.spec import SandboxSpec
from services.common.settings import Home

ROUNDS = 5
OUTPUT_ROUNDS = 15  # four processes share two processors in one way or another: five rounds swing by a third
PROGRAMS = {
    "numbers, formatted one by one (seq)": "seq 1 30000000",
    "one line over and over (yes)": f"yes {'x' * 99} | head -c 400000000",
}
FINISHED = 1000
QUIET = "echo ready; exec sleep 600"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Service:
    """The service as a process that a measurement may kill and start again."""

    def __init__(self, directory: Path) -> None:
        self.home, self.workspace = directory / "home", directory / "workspace"
        self.workspace.mkdir()
        self.address = f"127.0.0.1:{free_port()}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        settings = {
            "BOATYARD_HOME": str(self.home),
            "BOATYARD_EXECUTION_LISTEN": self.address,
            "BOATYARD_EXECUTION_MAX_EXECUTIONS": "256",
            "BOATYARD_LOG_LEVEL": "ERROR",
        }
        self.process = subprocess.Popen([sys.executable, "-m", "services.execution"], env=os.environ | settings)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[ExecutionServiceStub]:
        self.start()
        try:
            async with open_channel(self.address, Home(self.home).cell_token()) as channel:
                stub = ExecutionServiceStub(channel)
                await stub.ListExecutions(pb.ListExecutionsRequest(), wait_for_ready=True, timeout=60)
                yield stub
        finally:
            self.process.terminate()
            self.process.wait()

    def memory(self) -> float:
        """Resident memory of the service's own process that nobody else shares, in MB."""
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return int(re.search(r"^Private_Dirty:\s+(\d+)", text, re.MULTILINE)[1]) / 1024


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
        return (await self.timed_output(execution_id, first))[0]

    async def timed_output(self, execution_id: str, first: bool = False) -> tuple[int, float]:
        """The same, and seconds since the first of it came."""
        total, began = 0, 0.0
        call = self.stub.WatchEvents(pb.WatchEventsRequest(execution_id=execution_id, follow=True))
        async for message in call:
            total += sum(len(event.output.data) for event in message.events)
            began = began or (time.perf_counter() if total else 0.0)
            if first and total:
                call.cancel()
                break
        return total, time.perf_counter() - began


def bare_output(line: str) -> tuple[int, float]:
    process = subprocess.Popen(["/bin/sh", "-c", line], stdout=subprocess.PIPE, bufsize=0)
    total = len(os.read(process.stdout.fileno(), 64 * 1024))
    began = time.perf_counter()
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
        for _ in range(OUTPUT_ROUNDS):
            size, took = await asyncio.to_thread(bare_output, line)
            bare.append(size / took / 1e6)
            seen, took = await executions.timed_output(await executions.start(line))
            served.append(size / took / 1e6)
            assert seen == size, f"{seen} bytes of {size} arrived"
        pipe, ours = statistics.median(bare), statistics.median(served)
        ratios = ", ".join(f"{one / two:.2f}" for one, two in zip(served, bare, strict=True))
        print(
            f"output   {name}: {ours:.0f} MB/s, bare pipe {pipe:.0f} MB/s, ratio {ours / pipe:.2f} (rounds: {ratios})"
        )


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


async def bench_viewers(executions: Executions, service: Service) -> None:
    line = "sleep 1; seq 1 13000000"
    for count, stalled in ((1, 0), (10, 0), (50, 0), (49, 1)):
        before = service.memory()
        execution_id = await executions.start(line)
        calls = [
            executions.stub.WatchEvents(pb.WatchEventsRequest(execution_id=execution_id, follow=True))
            for _ in range(stalled)
        ]
        for call in calls:
            await call.read()
        await asyncio.sleep(1)
        began = time.perf_counter()
        sizes = await asyncio.gather(*(executions.output(execution_id) for _ in range(count)))
        took = time.perf_counter() - began
        grown = service.memory() - before
        for call in calls:
            call.cancel()
        assert len(set(sizes)) == 1
        who = f"{count} viewers" + (f" and {stalled} that reads nothing" if stalled else "")
        print(f"viewers  {who}: {sum(sizes) / took / 1e6:.0f} MB/s together, service grew by {grown:.0f} MB")


async def bench_stop(executions: Executions) -> None:
    tree_of_40 = (
        "trap '' TERM; for i in $(seq 40); do setsid -f sh -c \"trap '' TERM; while :; do sleep 1; done\"; done;"
        " echo ready; while :; do sleep 1; done"
    )
    took = []
    for _ in range(ROUNDS):
        execution_id = await executions.start(tree_of_40)
        await executions.output(execution_id, first=True)
        began = time.perf_counter()
        await executions.stub.StopExecution(pb.StopExecutionRequest(execution_id=execution_id, grace=Duration()))
        end = (await executions.stub.WaitExecution(pb.WaitExecutionRequest(execution_id=execution_id))).execution
        took.append(time.perf_counter() - began)
        assert end.processes_left == 0
    print(f"stop     {statistics.median(took) * 1e3:.0f} ms until 40 processes that would not go are known to be gone")


async def end_all(executions: Executions, ids: list[str]) -> None:
    stub = executions.stub
    await asyncio.gather(
        *(stub.StopExecution(pb.StopExecutionRequest(execution_id=one, grace=Duration()), timeout=120) for one in ids)
    )
    await asyncio.gather(*(stub.WaitExecution(pb.WaitExecutionRequest(execution_id=one), timeout=120) for one in ids))


async def bench_many(executions: Executions) -> None:
    began = time.perf_counter()
    ids = await asyncio.gather(*(executions.start(QUIET) for _ in range(200)))
    await asyncio.gather(*(executions.output(one, first=True) for one in ids))
    running = time.perf_counter() - began
    began = time.perf_counter()
    await end_all(executions, ids)
    print(
        f"many     200 executions: {running:.1f} s until all run, {time.perf_counter() - began:.1f} s to end them all"
    )


async def bench_finished(executions: Executions, service: Service) -> None:
    async def some(count: int) -> None:
        for _ in range(count // 20):
            ids = await asyncio.gather(*(executions.start("true") for _ in range(20)))
            waits = (pb.WaitExecutionRequest(execution_id=one) for one in ids)
            await asyncio.gather(*(executions.stub.WaitExecution(wait, timeout=120) for wait in waits))

    await some(100)
    before = service.memory()
    await some(FINISHED)
    after = service.memory()
    slope = (after - before) / FINISHED * 1024
    print(f"finished {after:.0f} MB after {FINISHED + 100} that ended, {slope:.1f} KB for each more")


async def bench_restart(executions: Executions, service: Service) -> None:
    ids = await asyncio.gather(*(executions.start("while :; do echo x; sleep 0.2; done") for _ in range(50)))
    await asyncio.gather(*(executions.output(one, first=True) for one in ids))
    service.process.kill()
    service.process.wait()
    began = time.perf_counter()
    service.start()
    request = pb.ListExecutionsRequest(states=[pb.Execution.STATE_RUNNING], page_size=1000)
    found = (await executions.stub.ListExecutions(request, wait_for_ready=True, timeout=60)).executions
    took = time.perf_counter() - began
    assert {one.execution_id for one in found} >= set(ids)
    bare = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import services.execution.app"], check=True)
    bare = time.perf_counter() - bare
    print(f"restart  {took * 1e3:.0f} ms to serve again with 50 running, {bare * 1e3:.0f} of them to import")
    await end_all(executions, ids)


async def bench_memory(executions: Executions, home: Path) -> None:
    execution_id = await executions.start(QUIET)
    await executions.output(execution_id, first=True)
    locks = Path("/proc/locks").read_text()
    inode = (home / "execution" / "runs" / execution_id / "lock").stat().st_ino
    runner = int(re.search(rf"POSIX\s+ADVISORY\s+WRITE\s+(\d+)\s+\S+:{inode}\s", locks)[1])
    print(f"memory   {pss_of(tree(runner)):.1f} MB for an idle execution, {pss_of([runner]):.1f} of it the runner")
    await executions.stub.StopExecution(pb.StopExecutionRequest(execution_id=execution_id, grace=Duration()))
    await executions.stub.WaitExecution(pb.WaitExecutionRequest(execution_id=execution_id))


async def main() -> None:
    directory = Path(tempfile.mkdtemp(prefix="boatyard-bench-"))
    service = Service(directory)
    try:
        async with service.running() as stub:
            executions = Executions(stub, service.workspace)
            parts = {
                "output": lambda: bench_output(executions),
                "viewers": lambda: bench_viewers(executions, service),
                "start": lambda: bench_start(executions),
                "stop": lambda: bench_stop(executions),
                "memory": lambda: bench_memory(executions, service.home),
                "many": lambda: bench_many(executions),
                "finished": lambda: bench_finished(executions, service),
                "restart": lambda: bench_restart(executions, service),
            }
            for name in sys.argv[1:] or parts:
                await parts[name]()
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    asyncio.run(main())
