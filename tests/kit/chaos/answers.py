"""What people say to what jobs ask them: any gateway is told, some of them twice at once."""

import asyncio
import random
from typing import Any

from boatyard.gateway.v1 import checkpoint_pb2 as pb

from tests.kit.chaos.fleet import Fleet
from tests.kit.chaos.submissions import Submission

_AT_ONCE = 0.3
"""How often two people say the same at once."""
_THOUGHT_SECONDS = 3.0


class Answers:
    """Answers each question once, in a while, as its job's order says."""

    def __init__(self, fleet: Fleet, orders: list[Submission], rng: random.Random) -> None:
        self.complaints: list[str] = []
        self._fleet = fleet
        self._orders = orders
        self._rng = random.Random(rng.random())
        self._seen: set[str] = set()

    async def give(self) -> None:
        """Answer until cancelled."""
        asked = pb.ListCheckpointsRequest(states=[pb.Checkpoint.STATE_PENDING], page_size=1000)
        async with asyncio.TaskGroup() as tasks:
            while True:
                found = (await self._fleet.ask("checkpoints", "ListCheckpoints", asked)).checkpoints
                by_job = {job_id: order for order in self._orders for job_id in order.job_ids}
                for checkpoint in found:
                    order = by_job.get(checkpoint.job_id)
                    if order and order.work.answer and checkpoint.checkpoint_id not in self._seen:
                        self._seen.add(checkpoint.checkpoint_id)
                        tasks.create_task(self._answer(checkpoint, order.work.answer))
                await asyncio.sleep(0.5)

    async def _answer(self, checkpoint: pb.Checkpoint, said: str) -> None:
        await asyncio.sleep(self._rng.uniform(0, _THOUGHT_SECONDS))
        if said == "revise" and checkpoint.round > 1:
            said = "approve"
        method, request = _call(checkpoint.checkpoint_id, said)
        people = 2 if self._rng.random() < _AT_ONCE else 1
        answers = await asyncio.gather(*(self._fleet.ask("checkpoints", method, request) for _ in range(people)))
        if len({answer.checkpoint.state for answer in answers}) != 1:
            self.complaints.append(f"two answers to {checkpoint.checkpoint_id} at once were told {answers}")


def _call(checkpoint_id: str, said: str) -> tuple[str, Any]:
    match said:
        case "approve":
            return "ApproveCheckpoint", pb.ApproveCheckpointRequest(checkpoint_id=checkpoint_id)
        case "reject":
            return "RejectCheckpoint", pb.RejectCheckpointRequest(checkpoint_id=checkpoint_id, reason="no")
        case _:
            return "RequestChanges", pb.RequestChangesRequest(checkpoint_id=checkpoint_id, comment="once more")
