"""Jobs as they were asked for: submitted and cancelled over gateways that come and go, each call until answered."""

import asyncio
import random
from dataclasses import dataclass, field

import grpc
from boatyard.gateway.v1 import job_pb2

from tests.kit.chaos.fleet import Fleet
from tests.kit.chaos.workloads import Workload, draw_workloads, job_spec

_AGAIN = 0.1
"""How often a submission that was answered is made once more, as by somebody who had not heard the answer."""


@dataclass
class Submission:
    """One wish, and what was answered to it."""

    number: int
    work: Workload
    request_id: str
    begins: float
    spec: job_pb2.JobSpec
    cancel_after: float | None = None
    job_ids: set[str] = field(default_factory=set)

    @property
    def job_id(self) -> str:
        (job_id,) = self.job_ids
        return job_id


def draw_submissions(rng: random.Random, fleet: Fleet, count: int, seconds: float) -> list[Submission]:
    """Draw `count` orders, spread over `seconds`."""
    orders = []
    for number, work in enumerate(draw_workloads(rng, count)):
        priority = rng.choice((0, 0, 0, 5, -5))
        wanted = job_spec(work, number, fleet.mark, rng.choice(fleet.repositories), priority)
        order = Submission(number, work, f"{fleet.mark}-{number}", rng.uniform(0, seconds), wanted)
        if work.cancelled_within:
            order.cancel_after = rng.uniform(0, work.cancelled_within)
        orders.append(order)
    return orders


async def submit_all(orders: list[Submission], fleet: Fleet, rng: random.Random) -> None:
    """Submit every order in its time, and cancel those that are to be cancelled."""
    async with asyncio.TaskGroup() as tasks:
        for order in orders:
            tasks.create_task(_see_to(order, fleet, rng.random() < _AGAIN))


async def _see_to(order: Submission, fleet: Fleet, again: bool) -> None:
    await asyncio.sleep(order.begins)
    request = job_pb2.CreateJobRequest(request_id=order.request_id, spec=order.spec)
    for _ in range(1 + again):
        answer = await fleet.ask("jobs", "CreateJob", request)
        order.job_ids.add(answer.job.job_id)
    if order.cancel_after is not None:
        await asyncio.sleep(order.cancel_after)
        try:
            await fleet.ask("jobs", "CancelJob", job_pb2.CancelJobRequest(job_id=order.job_id))
        except grpc.aio.AioRpcError as error:  # it has ended already
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                raise
