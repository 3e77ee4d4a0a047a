"""Executions at the real service, each figure against a bare equivalent or a goal, in one run.

output    bytes per second at WatchEvents, from a program in the sandbox through runner, redaction, event log and gRPC
          to a client in a process of its own; against the same program on a pipe; each from its first byte to its last,
          because what comes before is part of `start`. Wanted: >= 0.4 for a program that computes what it writes. The
          second program only writes: it shows the distance to what the machine's memory can do
viewers   the same for 1, 10 and 50 viewers of one execution, one of 50 stalled, and the growth of the service's memory
          (wanted: <= 64 MB)
start     StartExecution called -> first byte at the client; against bwrap alone -> first byte    (wanted: <= 10)
stop      StopExecution without grace -> its tree, of 40 processes that ignore SIGTERM and left their session, is known
          to be gone (wanted: <= 500 ms)
memory    proportional set size of an idle execution: runner and sandbox (wanted: <= 25 MB; with a model: bench.loop)
many      200 executions started at once: time until all run, and until all have ended
finished  memory of the service after a number of executions have ended (--finished), and its slope
restart   kill -9 with 50 running -> the restarted service answers and has found them all

    python -m bench.executions output start
    python -m bench.executions finished --finished 10000
"""

import argparse
import asyncio
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from boatyard.execution.v1 import execution_pb2 as pb

from bench.kit.executions import Executions, executions
from bench.kit.figures import at_least, at_most
from bench.kit.options import add_parts, options
from bench.kit.processes import own_mb, proportional_mb
from services.sandbox import environment
from services.sandbox.launch import prepare
from services.sandbox.spec import SandboxSpec

ROUNDS = 5
OUTPUT_ROUNDS = 15  # four processes share two processors, scheduled differently each time: five rounds vary by a third
PROGRAMS = {
    "numbers, formatted one by one (seq)": ("seq 1 30000000", 0.4),
    "one line over and over (yes)": (f"yes {'x' * 99} | head -c 400000000", None),
}
STUBBORN = (
    "trap '' TERM; for i in $(seq 40); do setsid -f sh -c \"trap '' TERM; while :; do sleep 1; done\"; done;"
    " echo ready; while :; do sleep 1; done"
)
QUIET = "echo ready; exec sleep 600"
AT_ONCE = 20  # executions per batch in `finished`


def bare_output(line: str) -> tuple[int, float]:
    """Return how many bytes a program writes to a pipe, and the seconds from its first byte to its last."""
    process = subprocess.Popen(["/bin/sh", "-c", line], stdout=subprocess.PIPE, bufsize=0)
    assert process.stdout
    total = len(os.read(process.stdout.fileno(), 64 * 1024))
    began = time.perf_counter()
    while chunk := os.read(process.stdout.fileno(), 64 * 1024):
        total += len(chunk)
    process.wait()
    process.stdout.close()
    return total, time.perf_counter() - began


def bare_start() -> float:
    """Return the seconds from spawning bwrap, with the sandbox that an execution gets, to its program's first byte."""
    spec = SandboxSpec((b"/bin/sh", b"-c", b"echo ready"), Path("/tmp"), environment=environment.base())
    with prepare(spec) as launch:
        began = time.perf_counter()
        process = subprocess.Popen(
            launch.argv, env=launch.env, cwd=launch.cwd, pass_fds=launch.pass_fds, stdout=subprocess.PIPE, bufsize=0
        )
        assert process.stdout
        os.read(process.stdout.fileno(), 1)
        took = time.perf_counter() - began
    process.wait()
    process.stdout.close()
    return took


async def output(runs: Executions, _wanted: argparse.Namespace) -> None:
    for name, (line, aim) in PROGRAMS.items():
        bare, served = [], []
        for _ in range(OUTPUT_ROUNDS):
            size, took = await asyncio.to_thread(bare_output, line)
            bare.append(size / took / 1e6)
            seen, took = await runs.timed_output(await runs.start(line))
            served.append(size / took / 1e6)
            assert seen == size, f"{seen} bytes of {size} arrived"
        pipe, ours = statistics.median(bare), statistics.median(served)
        ratios = ", ".join(f"{one / two:.2f}" for one, two in zip(served, bare, strict=True))
        print(
            f"output   {name}: {ours:.0f} MB/s, bare pipe {pipe:.0f} MB/s, ratio {ours / pipe:.2f}"
            f"{'' if aim is None else ' ' + at_least(ours / pipe, aim)} (rounds: {ratios})"
        )


async def viewers(runs: Executions, _wanted: argparse.Namespace) -> None:
    service = runs.services.processes["execution"].pid
    for count, stalled in ((1, 0), (10, 0), (50, 0), (49, 1)):
        before = own_mb(service)
        execution_id = await runs.start("sleep 1; seq 1 13000000")
        request = pb.WatchEventsRequest(execution_id=execution_id, follow=True)
        calls = [runs.stub.WatchEvents(request) for _ in range(stalled)]
        for call in calls:
            await call.read()
        await asyncio.sleep(1)
        began = time.perf_counter()
        sizes = await asyncio.gather(*(runs.output(execution_id) for _ in range(count)))
        took = time.perf_counter() - began
        grown = own_mb(service) - before
        for call in calls:
            call.cancel()
        assert len(set(sizes)) == 1
        who = f"{count} viewers" + (f" and {stalled} that reads nothing" if stalled else "")
        rate = sum(sizes) / took / 1e6
        print(f"viewers  {who}: {rate:.0f} MB/s together, service grew by {grown:.0f} MB {at_most(grown, 64)}")


async def start(runs: Executions, _wanted: argparse.Namespace) -> None:
    bare, ours = [], []
    for _ in range(2 * ROUNDS):
        await asyncio.sleep(1)  # one at a time, as people start them: this does not measure a burst
        bare.append(bare_start())
        began = time.perf_counter()
        await runs.output(await runs.start("echo ready"), first=True)
        ours.append(time.perf_counter() - began)
    wrap, took = statistics.median(bare) * 1e3, statistics.median(ours) * 1e3
    ratio = took / wrap
    print(f"start    {took:.1f} ms to the first byte, bare bwrap {wrap:.1f} ms, ratio {ratio:.1f} {at_most(ratio, 10)}")


async def stop(runs: Executions, _wanted: argparse.Namespace) -> None:
    found = []
    for _ in range(ROUNDS):
        execution_id = await runs.start(STUBBORN)
        await runs.output(execution_id, first=True)
        began = time.perf_counter()
        end = await runs.stop(execution_id)
        found.append(time.perf_counter() - began)
        assert end.processes_left == 0
    took = statistics.median(found) * 1e3
    print(f"stop     {took:.0f} ms until 40 processes that would not go are known to be gone {at_most(took, 500)}")


async def memory(runs: Executions, _wanted: argparse.Namespace) -> None:
    execution_id = await runs.start(QUIET)
    await runs.output(execution_id, first=True)
    pids = runs.processes(execution_id)
    taken, runner = proportional_mb(pids), proportional_mb(pids[:1])
    print(f"memory   {taken:.1f} MB for an idle execution, {runner:.1f} of it the runner {at_most(taken, 25)}")
    await runs.stop(execution_id)


async def many(runs: Executions, _wanted: argparse.Namespace) -> None:
    began = time.perf_counter()
    ids = await asyncio.gather(*(runs.start(QUIET) for _ in range(200)))
    await asyncio.gather(*(runs.output(one, first=True) for one in ids))
    running = time.perf_counter() - began
    began = time.perf_counter()
    await runs.stop_all(ids)
    print(
        f"many     200 executions: {running:.1f} s until all run, {time.perf_counter() - began:.1f} s to end them all"
    )


async def finished(runs: Executions, wanted: argparse.Namespace) -> None:
    async def some(count: int) -> None:
        for _ in range(count // AT_ONCE):
            ids = await asyncio.gather(*(runs.start("true") for _ in range(AT_ONCE)))
            for end in await asyncio.gather(*map(runs.ended, ids)):
                assert end.state == pb.NodeExecution.STATE_SUCCEEDED, end

    service = runs.services.processes["execution"].pid
    await some(100)
    before = own_mb(service)
    await some(wanted.finished)
    after = own_mb(service)
    slope = (after - before) / wanted.finished * 1024
    print(f"finished {after:.0f} MB after {wanted.finished + 100} that ended, {slope:.1f} KB for each more")


async def restart(runs: Executions, _wanted: argparse.Namespace) -> None:
    ids = await asyncio.gather(*(runs.start("while :; do echo x; sleep 0.2; done") for _ in range(50)))
    await asyncio.gather(*(runs.output(one, first=True) for one in ids))
    runs.services.end("execution", signal.SIGKILL)
    began = time.perf_counter()
    runs.services.start("execution")
    request = pb.ListExecutionsRequest(states=[pb.NodeExecution.STATE_RUNNING], page_size=1000)
    found = (await runs.stub.ListExecutions(request, wait_for_ready=True, timeout=60)).executions
    took = time.perf_counter() - began
    assert {one.execution_id for one in found} >= set(ids)
    bare = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import services.execution.app"], check=True)
    bare = time.perf_counter() - bare
    print(f"restart  {took * 1e3:.0f} ms to serve again with 50 running, {bare * 1e3:.0f} of them to import")
    await runs.stop_all(ids)


PARTS: dict[str, Callable[[Executions, argparse.Namespace], Awaitable[None]]] = {
    part.__name__: part for part in (output, viewers, start, stop, memory, many, finished, restart)
}


async def main() -> None:
    parser = options(__doc__)
    add_parts(parser, PARTS)
    parser.add_argument("--finished", type=int, default=1000, metavar="N", help=f"how many are to end, by {AT_ONCE}s")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="boatyard-bench-") as directory:
        async with executions(Path(directory)) as runs:
            for name in wanted.parts:
                await PARTS[name](runs, wanted)


if __name__ == "__main__":
    asyncio.run(main())
