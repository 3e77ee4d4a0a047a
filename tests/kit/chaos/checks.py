"""What must be true when all is over. Each proof returns what is not, in words; nothing is proved by silence alone:
what is looked at must be there."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from boatyard.gateway.v1 import job_pb2

from tests.kit.chaos.facts import Facts, Log
from tests.kit.chaos.faults import FaultRecord
from tests.kit.chaos.fleet import Fleet
from tests.kit.chaos.submissions import Submission
from tests.kit.chaos.workloads import CAN_BE_LOST, MAX_ATTEMPTS, NUMBER


def state_of(job: job_pb2.Job) -> str:
    return job_pb2.Job.State.Name(job.state).removeprefix("STATE_")


class Checks:
    """Holds orders and facts against one another."""

    def __init__(self, fleet: Fleet, orders: list[Submission], facts: Facts, record: FaultRecord) -> None:
        self._fleet = fleet
        self._facts = facts
        self._record = record
        self._orders = orders
        self._jobs = {job.spec.labels[NUMBER]: job for job in facts.jobs}
        self._pairs = [(order, self._jobs[str(order.number)]) for order in orders if str(order.number) in self._jobs]

    def complaints(self) -> list[str]:
        """Return all that is not as it must be."""
        proofs = (
            self.every_job_is_there_once,
            self.every_job_ended_as_it_must,
            self.every_push_took_effect_once,
            self.every_webhook_was_told,
            self.every_log_is_whole,
            self.timelines_are_consistent,
            self.answers_were_clear,
        )
        return [f"{proof.__name__}: {complaint}" for proof in proofs for complaint in proof()]

    def every_job_is_there_once(self) -> Iterator[str]:
        """One job for each order, however often it was submitted, and none that nobody ordered."""
        by_number = defaultdict(list)
        for job in self._facts.jobs:
            by_number[job.spec.labels[NUMBER]].append(job.job_id)
        for order in self._orders:
            found = by_number.pop(str(order.number), [])
            if len(found) != 1 or set(found) != order.job_ids:
                yield f"order {order.number} ({order.work.name}) was answered {order.job_ids}, and is there as {found}"
        for number, found in by_number.items():
            yield f"nobody ordered {number!r}: {found}"

    def every_job_ended_as_it_must(self) -> Iterator[str]:
        """In the one right state for what it was to do, or lost in every one of its attempts."""
        for order, job in self._pairs:
            state, work = (state_of(job), job.reason), order.work
            waited = (job.start_time.ToMicroseconds() - job.create_time.ToMicroseconds()) / 1e6
            if job.HasField("start_time") and waited < work.delay:
                yield f"{job.job_id} was to wait for {work.delay} s, and waited for {waited:.3f} s"
            right = {(work.state, work.reason)}
            if order.cancel_after is not None:
                # Where the agent does not end by itself there is one right end; else either, by who was faster.
                right = {("CANCELLED", ""), *right} if work.may_outrun_cancel else {("CANCELLED", "")}
            if state in right or not (complaint := self._not_lost(job)):
                continue
            where = f"{job.job_id} ({work.name}, {order.number}) on {job.cell_id}"
            yield f"{where} ended {state} and not {right}: {job.message} [{complaint}]"

    def _not_lost(self, job: job_pb2.Job) -> str:
        """Say why a job's end is not excused by what befell it: each of its attempts must have been lost to a blow."""
        executions = self._facts.executions[job.job_id]
        if job.state != job.STATE_FAILED or job.reason not in CAN_BE_LOST:
            return "it was not lost"
        attempts = self._facts.attempts(job.job_id)
        if attempts != MAX_ATTEMPTS:
            return f"it had {attempts} of {MAX_ATTEMPTS} attempts"
        for row in executions:
            if row["reason"] == "RUNNER_LOST" and row["execution_id"] not in self._record.runners_killed:
                return f"the runner of {row['execution_id']} was lost, and nobody had killed it"
        reasons = {row["reason"] for row in executions if row["purpose"] == "AGENT" and row["reason"]}
        return "" if reasons <= CAN_BE_LOST else f"its attempts ended with {reasons}"

    def every_push_took_effect_once(self) -> Iterator[str]:
        """One change of the branch's ref, from nothing to the job's commit; none where nothing was to be pushed."""
        changes = dict(self._facts.pushes)
        for order, job in self._pairs:
            branch = f"boatyard/{job.job_id}"
            found = changes.pop(f"refs/heads/{branch}", [])
            where = f"{job.job_id} ({order.work.name}, {state_of(job)} {job.reason})"
            if not (order.work.pushes and job.state == job.STATE_SUCCEEDED):
                lost = job.state == job.STATE_FAILED and job.reason in CAN_BE_LOST and order.work.pushes
                if len(found) > lost:
                    yield f"{where} was not to push, and its ref went {found}"
                continue
            if complaint := self._other_pushes(job, found):
                yield f"{where} has commit {job.output.commit_id!r}, and its ref went {found}: {complaint}"
                continue
            remote = self._fleet.remotes[job.spec.repository_id]
            for name, content in order.work.files.items():
                if (there := remote.git("show", f"{branch}:{name}")) != content:
                    yield f"{where} has {name} as {there!r} and not {content!r}"
        for ref, found in changes.items():
            yield f"nobody was to change {ref}, and it went {found}"

    def _other_pushes(self, job: job_pb2.Job, found: list[tuple[str, str]]) -> str:
        """Say what is wrong with the changes of a branch: one, and one for each attempt that was lost in it."""
        pushing = {row["attempt"] for row in self._facts.stages[job.job_id] if row["name"] == "push"}
        rows = [row for row in self._facts.executions[job.job_id] if row["attempt"] in pushing]
        commits = {json.loads(row["output"])["commit_id"] for row in rows} - {""}
        if [old for old, _ in found] != ["", *(new for _, new in found[:-1])]:
            return "it did not begin with nothing, or somebody was in between"
        if len({new for _, new in found}) != len(found) or len(found) > len(pushing):
            return f"it was changed more often than its attempts {pushing} could"
        if not {new for _, new in found} <= commits or found[-1][1] != job.output.commit_id:
            return f"its attempts have {commits}"
        return ""

    def every_webhook_was_told(self) -> Iterator[str]:
        """At least once for each event, under one key and with one body a call, and no event that was not."""
        bodies, keys = defaultdict(set), defaultdict(set)
        for received in self._facts.received:
            bodies[received.message_id].add(received.body)
            told = received.json
            keys[told["data"]["job"]["jobId"], told["type"], told["data"]["hook_id"]].add(received.message_id)
        for key, found in bodies.items():
            if len(found) != 1:
                yield f"call {key} came with {len(found)} bodies: {_difference(*sorted(found)[:2])}"
        calls = defaultdict(list)
        for (job_id, event, _), found in keys.items():
            calls[job_id, event.removeprefix("job.")].append(len(found))
        for order, job in self._pairs:
            attempts = self._facts.attempts(job.job_id)
            for event, wanted in self._events(order, job).items():
                counts = calls.pop((job.job_id, event), [])
                where = f"{job.job_id} ({order.work.name}, {state_of(job)} {job.reason}) {event}"
                if wanted and len(counts) != 1:
                    yield f"{where} was told by {len(counts)} hooks, and one is registered"
                elif any(count > attempts for count in counts):
                    yield f"{where} was told under {counts} keys in {attempts} attempts"
                elif wanted is False and counts:
                    yield f"{where} was told, and there was no such event"

    def _events(self, order: Submission, job: job_pb2.Job) -> dict[str, bool | None]:
        """Say of each event whether it was to be told; None where it may have been."""
        lost = job.state == job.STATE_FAILED and job.reason in CAN_BE_LOST
        succeeded = job.state == job.STATE_SUCCEEDED
        return {
            "pre": None if lost or job.state == job.STATE_CANCELLED else not order.work.is_vetoed,
            "post": None if (succeeded and order.cancel_after is not None) or lost else succeeded,
            "error": job.state == job.STATE_FAILED,
        }

    def every_log_is_whole(self) -> Iterator[str]:
        """Every execution that has ended has events without gap or doubling, and what its agent wrote, once."""
        coordinators = {machine.cell_id() for machine in self._fleet.coordinators}
        for order, job in self._pairs:
            for row in self._facts.executions.get(job.job_id, []):
                log = self._facts.logs.get(row["execution_id"])
                if log is None:
                    if row["start_time"] is not None and not self._record.lost_for_good:
                        yield f"{row['execution_id']} of {job.job_id} began, and no machine has its events"
                    continue
                if row["start_time"] is None:  # its cell was lost before it could say that this had begun
                    log = replace(log, told=log.sequences)
                if row["cell_id"] in coordinators and row["reason"] == "NODE_LOST":  # it could send no more than that
                    log = replace(log, told=[*log.told, *log.sequences[len(log.told) :]])
                if complaint := _broken(log):
                    yield f"{row['execution_id']} of {job.job_id}: {complaint}"
                if row["purpose"] == "AGENT" and (complaint := _other(order, row["reason"], job, log)):
                    yield f"{row['execution_id']} of {job.job_id} ({order.work.name}): {complaint}"

    def timelines_are_consistent(self) -> Iterator[str]:
        """Each stage after the one before it, none twice, and what others see of a job done in one attempt alone."""
        for job_id, found in self._facts.stages.items():
            pushed = [row["attempt"] for row in found if row["name"] == "push" and row["state"] == "DONE"]
            if len(pushed) > 1:
                yield f"{job_id} pushed in its attempts {pushed}"
            for attempt in {row["attempt"] for row in found}:
                rows = [row for row in found if row["attempt"] == attempt]
                names = [row["name"] for row in rows]
                if len(set(names)) != len(names):
                    yield f"{job_id}, attempt {attempt}: stages twice: {names}"
                for before, after in pairwise(rows):
                    if before["state"] == "DONE" and after["start_time"] < before["end_time"]:
                        yield f"{job_id}, attempt {attempt}: {after['name']} began before {before['name']} had ended"

    def answers_were_clear(self) -> Iterator[str]:
        """Whoever asked while things were down was told so, and never that something is wrong with us."""
        for answer, count in self._fleet.unclear.items():
            yield f"{count} times {answer}"


def _broken(log: Log) -> str:
    if log.sequences != list(range(1, len(log.sequences) + 1)):
        gaps = [(a, b) for a, b in pairwise([0, *log.sequences]) if b != a + 1]
        return f"its events have gaps, or stand twice, between {gaps[:5]}"
    if log.told != log.sequences:
        return f"it has {len(log.sequences)} events, and a gateway tells {len(log.told)}"
    return "" if log.last_state in {"SUCCEEDED", "FAILED", "CANCELLED"} else f"its last state is {log.last_state!r}"


def _other(order: Submission, reason: str, job: job_pb2.Job, log: Log) -> str:
    expected = order.work.output
    if expected is None:
        return ""
    whole = reason == order.work.reason and job.state != job.STATE_CANCELLED
    if whole and log.stdout != expected:
        return f"wrote {log.stdout[-80:]!r}, {len(log.stdout)} bytes, and not {expected[-80:]!r}, {len(expected)}"
    return "" if expected.startswith(log.stdout) else f"wrote {log.stdout[-80:]!r}"


def _difference(one: bytes, other: bytes) -> str:
    at = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return f"…{one[max(0, at - 30) : at + 50]!r} and …{other[max(0, at - 30) : at + 50]!r}"
