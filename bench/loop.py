"""The loop of a model at the real execution service, against the bare SDK, in one run. services.replay is the model.

turn     from one request's arrival at the model to the next one's: a streamed answer, a call of a trivial tool in the
         sandbox, events and history written; against the SDK alone, which reads the same answers and calls nothing
start    StartExecution called -> first request at the model
memory   proportional set size of an execution in mid-answer: runner, sandbox, tools             (wanted: < 110 MB)
"""

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import anthropic
from boatyard.execution.v1 import execution_pb2 as pb
from boatyard.execution.v1.execution_pb2_grpc import ExecutionServiceStub
from boatyard.workspace.v1 import layout_pb2
from output import pss_of, service, tree

from services.execution.loop.tools import SYSTEM, TOOLS

TURNS = 60
STARTS = 6
MODEL = "claude-sonnet-5-5"
CALL = '{ name = "bash", input = { command = "true" } }'
TEXT = "I look at the next of the files, and then I shall say what stands in it, and what I make of that. " * 3


def script(path: Path) -> Path:
    """Write a conversation of so many turns, whose last answer stops in the middle for a while."""
    parts = ['origin = "scripted"']
    parts += [
        f'[[reply]]\ntext = "{TEXT}"\ntools = [{CALL}]\nusage = {{ input = 1, output = 1 }}' for _ in range(TURNS)
    ]
    parts.append('[[reply]]\ntext = "Done, with all of it."\nfaults = ["silence:600"]')
    path.write_text("\n".join(parts))
    return path


class Player:
    """The replay, and when it was asked."""

    def __init__(self, directory: Path) -> None:
        self.log = directory / "requests"
        arguments = [str(script(directory / "script.toml")), "--log", str(self.log)]
        self.process = subprocess.Popen([sys.executable, "-m", "services.replay", *arguments], stdout=subprocess.PIPE)
        self.url = self.process.stdout.readline().split()[1].decode()

    def times(self) -> list[float]:
        return [json.loads(line)["time"] for line in self.log.read_text().splitlines()]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()


def gaps_ms(times: list[float]) -> list[float]:
    return [(after - before) * 1e3 for before, after in pairwise(times)][5:]


async def bare(url: str) -> None:
    """Have the same conversation with the SDK and nothing else."""
    client = anthropic.AsyncAnthropic(api_key="bench", base_url=url, max_retries=0)
    messages: list[dict] = [{"role": "user", "content": "The bare one."}]
    request = {"model": MODEL, "max_tokens": 16384, "system": SYSTEM, "tools": TOOLS}
    for _ in range(TURNS):
        blocks: list[dict] = []
        async with await client.messages.create(**request, messages=messages, stream=True) as stream:
            async for event in stream:
                if event.type == "content_block_start":
                    blocks.append(event.content_block.to_dict())
                elif event.type == "content_block_delta" and event.delta.type == "text_delta":
                    blocks[event.index]["text"] += event.delta.text
        called = [block["id"] for block in blocks if block["type"] == "tool_use"]
        answered = [{"type": "tool_result", "tool_use_id": each, "content": "(no output)"} for each in called]
        messages += [{"role": "assistant", "content": blocks}, {"role": "user", "content": answered}]
    await client.close()


class Executions:
    def __init__(self, stub: ExecutionServiceStub, workspace: Path) -> None:
        self.stub = stub
        self.layout = layout_pb2.Layout(path=bytes(workspace))

    async def start(self, execution_id: str) -> None:
        engine = pb.AnthropicEngine(model=MODEL, prompt=f"Number {execution_id}.", max_turns=1000)
        spec = pb.ExecutionSpec(purpose=pb.ExecutionSpec.PURPOSE_AGENT, layout=self.layout, anthropic=engine)
        await self.stub.StartExecution(pb.StartExecutionRequest(execution_id=execution_id, spec=spec))

    async def stop(self, execution_id: str) -> None:
        await self.stub.StopExecution(pb.StopExecutionRequest(execution_id=execution_id))
        await self.stub.WaitExecution(pb.WaitExecutionRequest(execution_id=execution_id))


async def until(player: Player, count: int) -> list[float]:
    while len(times := player.times()) < count:
        await asyncio.sleep(0.005)
    return times


async def bench_turns(player: Player, executions: Executions, home: Path) -> None:
    await bare(player.url)
    begun = len(player.times())
    alone = statistics.median(gaps_ms(player.times()))
    await executions.start("turns")
    times = (await until(player, begun + TURNS + 1))[begun:]
    ours = statistics.median(gaps_ms(times))
    print(f"turn     {ours:.1f} ms with a tool call, the bare SDK {alone:.1f} ms: {ours - alone:.1f} ms more")
    await asyncio.sleep(0.5)
    pids = tree(holder(home, "turns"))
    print(f"memory   {pss_of(pids):.1f} MB in mid-answer after {TURNS} turns, {pss_of(pids[:1]):.1f} of it the runner")
    await executions.stop("turns")


def holder(home: Path, execution_id: str) -> int:
    """The runner's pid, as the kernel tells anybody."""
    inode = (home / "execution" / "runs" / execution_id / "lock").stat().st_ino
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return next(int(line[4]) for line in lines if line[1] == "POSIX" and line[5].endswith(f":{inode}"))


async def bench_start(player: Player, executions: Executions) -> None:
    took = []
    for number in range(STARTS):
        await asyncio.sleep(1.5)  # one at a time, as people start them
        begun, began = len(player.times()), time.time()
        await executions.start(f"start-{number}")
        took.append((await until(player, begun + 1))[begun] - began)
        await executions.stop(f"start-{number}")
    print(f"start    {statistics.median(took) * 1e3:.0f} ms from StartExecution to the first request")


async def main() -> None:
    directory = Path(tempfile.mkdtemp(prefix="boatyard-bench-"))
    player = Player(directory)
    os.environ |= {"ANTHROPIC_API_KEY": "bench", "ANTHROPIC_BASE_URL": player.url}
    try:
        async with service(directory) as stub:
            executions = Executions(stub, directory / "workspace")
            await bench_turns(player, executions, directory / "home")
            await bench_start(player, executions)
    finally:
        player.stop()
        shutil.rmtree(directory)


if __name__ == "__main__":
    asyncio.run(main())
