"""Submits and cancels jobs over gateways that come and go; each call is repeated until it is answered."""

import asyncio
import random
from dataclasses import dataclass, field

import grpc
from boatyard.gateway.v1 import job_pb2

from tests.kit.chaos.fleet import Fleet
from tests.kit.chaos.workloads import Workload, draw_workloads, job_spec

_REPEATED = 0.1
"""The probability that an answered submission is made once more, as by a client that did not get the answer."""


@dataclass
class Submission:
    """A job to submit, and the job ids that were answered."""

    number: int
    workload: Workload
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
    """Draw `count` submissions, spread over `seconds`."""
    submissions = []
    for number, workload in enumerate(draw_workloads(rng, count)):
        priority = rng.choice((0, 0, 0, 5, -5))
        spec = job_spec(workload, number, fleet.mark, rng.choice(fleet.repositories), priority)
        submission = Submission(number, workload, f"{fleet.mark}-{number}", rng.uniform(0, seconds), spec)
        if workload.cancelled_within:
            submission.cancel_after = rng.uniform(0, workload.cancelled_within)
        submissions.append(submission)
    return submissions


async def submit_all(submissions: list[Submission], fleet: Fleet, rng: random.Random) -> None:
    """Submit each job at its time, and cancel those that are to be cancelled."""
    async with asyncio.TaskGroup() as tasks:
        for submission in submissions:
            tasks.create_task(_submit(submission, fleet, rng.random() < _REPEATED))


async def _submit(submission: Submission, fleet: Fleet, repeat: bool) -> None:
    await asyncio.sleep(submission.begins)
    request = job_pb2.CreateJobRequest(request_id=submission.request_id, spec=submission.spec)
    for _ in range(1 + repeat):
        answer = await fleet.ask("jobs", "CreateJob", request)
        submission.job_ids.add(answer.job.job_id)
    if submission.cancel_after is not None:
        await asyncio.sleep(submission.cancel_after)
        try:
            await fleet.ask("jobs", "CancelJob", job_pb2.CancelJobRequest(job_id=submission.job_id))
        except grpc.aio.AioRpcError as error:  # it has ended already
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                raise
