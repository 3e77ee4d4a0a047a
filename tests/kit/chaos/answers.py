"""What people answer to the questions that jobs ask: at any gateway, and sometimes two people at once."""

import asyncio
import random
from typing import Any

from boatyard.gateway.v1 import checkpoint_pb2 as pb

from tests.kit.chaos.fleet import Fleet
from tests.kit.chaos.submissions import Submission

_TWO_PEOPLE = 0.3
"""The probability that two people give the same answer at once."""
_THOUGHT_SECONDS = 3.0


class Answers:
    """Answers each question once, after a while, as its job's workload says."""

    def __init__(self, fleet: Fleet, submissions: list[Submission], rng: random.Random) -> None:
        self.complaints: list[str] = []
        self._fleet = fleet
        self._submissions = submissions
        self._rng = random.Random(rng.random())
        self._seen: set[str] = set()

    async def give(self) -> None:
        """Answer until cancelled."""
        request = pb.ListCheckpointsRequest(states=[pb.Checkpoint.STATE_PENDING], page_size=1000)
        async with asyncio.TaskGroup() as tasks:
            while True:
                checkpoints = (await self._fleet.ask("checkpoints", "ListCheckpoints", request)).checkpoints
                by_job = {job_id: submission for submission in self._submissions for job_id in submission.job_ids}
                for checkpoint in checkpoints:
                    submission = by_job.get(checkpoint.job_id)
                    if submission and submission.workload.answer and checkpoint.checkpoint_id not in self._seen:
                        self._seen.add(checkpoint.checkpoint_id)
                        tasks.create_task(self._answer(checkpoint, submission.workload.answer))
                await asyncio.sleep(0.5)

    async def _answer(self, checkpoint: pb.Checkpoint, answer: str) -> None:
        await asyncio.sleep(self._rng.uniform(0, _THOUGHT_SECONDS))
        if answer == "revise" and checkpoint.round > 1:
            answer = "approve"
        method, request = _call(checkpoint.checkpoint_id, answer)
        people = 2 if self._rng.random() < _TWO_PEOPLE else 1
        replies = await asyncio.gather(*(self._fleet.ask("checkpoints", method, request) for _ in range(people)))
        if len({reply.checkpoint.state for reply in replies}) != 1:
            self.complaints.append(f"two answers at once to {checkpoint.checkpoint_id} got the replies {replies}")


def _call(checkpoint_id: str, answer: str) -> tuple[str, Any]:
    match answer:
        case "approve":
            return "ApproveCheckpoint", pb.ApproveCheckpointRequest(checkpoint_id=checkpoint_id)
        case "reject":
            return "RejectCheckpoint", pb.RejectCheckpointRequest(checkpoint_id=checkpoint_id, reason="no")
        case _:
            return "RequestChanges", pb.RequestChangesRequest(checkpoint_id=checkpoint_id, comment="once more")
