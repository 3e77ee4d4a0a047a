"""A model's loop at the real execution service, against the bare SDK, in one run. tests.kit.replay is the model.

turn     median milliseconds from one request's arrival at the model to the next one's: a streamed reply, a call of a
         trivial tool in the sandbox, events and history written; against the SDK alone, which reads the same replies
         and calls nothing. Decision 0006 says what the difference is spent on
start    milliseconds from StartExecution called to the first request at the model
memory   proportional set size of an execution in the middle of a reply: runner, sandbox, tools  (wanted: <= 110 MB)

    python -m bench.loop --turns 20 --starts 2
"""

import asyncio
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import anthropic
from boatyard.agent.v1 import model_pb2
from boatyard.agent.v1.agent_pb2 import AgentSettings, AnthropicEngine
from boatyard.execution.v1 import execution_pb2 as pb

from bench.kit.executions import Executions, executions
from bench.kit.figures import at_most
from bench.kit.options import options
from bench.kit.processes import proportional_mb
from services.agent.providers import EVERYWHERE
from services.execution.engines.anthropic.tools import SYSTEM, TOOLS
from tests.kit.replay import Replay, bash, replaying, write_script

MODEL = "claude-sonnet-5-5"
TEXT = "I look at the next of the files, and then I shall say what stands in it, and what I make of that. " * 3
WARMING_UP = 5  # turns that do not count
PATIENCE_SECONDS = 90


def script(path: Path, turns: int) -> Path:
    """Write a conversation of `turns` turns, whose last reply stops in the middle for a while."""
    turn = {"text": TEXT, "tools": [bash("true")], "usage": {"input": 1, "output": 1}}
    return write_script(path, [turn] * turns + [{"text": "Done, with all of it.", "faults": ["silence:600"]}])


def times(model: Replay) -> list[float]:
    """Return the times of the requests to the model so far."""
    return [request["time"] for request in model.requests()]


def gap_ms(asked: list[float]) -> float:
    return statistics.median((after - before) * 1e3 for before, after in list(pairwise(asked))[WARMING_UP:])


async def bare(url: str, turns: int) -> None:
    """Run the same conversation with the SDK and nothing else."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "The bare one."}]
    request: dict[str, Any] = {"model": MODEL, "max_tokens": 16384, "system": SYSTEM, "tools": TOOLS}
    request |= {"messages": messages, "stream": True}
    async with anthropic.AsyncAnthropic(api_key="bench", base_url=url, max_retries=0) as client:
        for _ in range(turns):
            blocks: list[dict[str, Any]] = []
            answer: Any = await client.messages.create(**request)
            async with answer:
                async for event in answer:
                    if event.type == "content_block_start":
                        blocks.append(event.content_block.to_dict())
                    elif event.type == "content_block_delta" and event.delta.type == "text_delta":
                        blocks[event.index]["text"] += event.delta.text
            called = [block["id"] for block in blocks if block["type"] == "tool_use"]
            answered = [{"type": "tool_result", "tool_use_id": each, "content": "(no output)"} for each in called]
            messages += [{"role": "assistant", "content": blocks}, {"role": "user", "content": answered}]


async def until_asked(model: Replay, count: int) -> list[float]:
    """Wait until the model has got `count` requests in all."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(asked := times(model)) < count:
            await asyncio.sleep(0.005)
        return asked


async def start(model: Replay, runs: Executions) -> str:
    agent = AgentSettings(anthropic=AnthropicEngine(), model=MODEL, max_turns=1000)
    wire = model_pb2.MODEL_WIRE_MESSAGES
    provider = model_pb2.ModelProvider(name="bench", wire=wire, base_url=model.url, keys=["bench-key"])
    provider.allowed_addresses.extend(EVERYWHERE)
    return await runs.start_spec(pb.ExecutionSpec(agent=agent, prompt="Look at the files.", providers=[provider]))


async def measure_turns(model: Replay, runs: Executions, turns: int) -> None:
    await bare(model.url, turns)
    asked = times(model)
    alone = gap_ms(asked)
    execution_id = await start(model, runs)
    ours = gap_ms((await until_asked(model, len(asked) + turns + 1))[len(asked) :])
    print(f"turn     {ours:.1f} ms with a tool call, bare SDK {alone:.1f} ms, ratio {ours / alone:.1f}")
    await asyncio.sleep(0.5)
    pids = runs.processes(execution_id)
    taken, runner = proportional_mb(pids), proportional_mb(pids[:1])
    print(f"memory   {taken:.1f} MB after {turns} turns, {runner:.1f} of it the runner {at_most(taken, 110)}")
    await runs.stop(execution_id)


async def measure_starts(model: Replay, runs: Executions, starts: int) -> None:
    took = []
    for _ in range(starts):
        await asyncio.sleep(1.5)  # one at a time, as people start them
        begun, began = len(times(model)), time.time()
        execution_id = await start(model, runs)
        took.append((await until_asked(model, begun + 1))[begun] - began)
        await runs.stop(execution_id)
    print(f"start    {statistics.median(took) * 1e3:.0f} ms from StartExecution to the first request")


async def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--turns", type=int, default=60, help=f"of the conversation, more than {WARMING_UP + 1}")
    parser.add_argument("--starts", type=int, default=6)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="boatyard-bench-") as name:
        directory = Path(name)
        with replaying(directory, script(directory / "script.toml", wanted.turns)) as model:
            async with executions(directory) as runs:
                await measure_turns(model, runs, wanted.turns)
                await measure_starts(model, runs, wanted.starts)


if __name__ == "__main__":
    asyncio.run(main())
