"""What must be true when all is over. Each check yields a sentence for what is not; none passes by finding nothing:
what it looks at must be there."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from boatyard.gateway.v1 import job_pb2

from services.common.room import DISK_FULL
from tests.kit.chaos.facts import Facts, Log
from tests.kit.chaos.faults import FaultRecord
from tests.kit.chaos.fleet import Fleet
from tests.kit.chaos.submissions import Submission
from tests.kit.chaos.workloads import CAN_BE_LOST, MAX_ATTEMPTS, NUMBER


def state_of(job: job_pb2.Job) -> str:
    return job_pb2.Job.State.Name(job.state).removeprefix("STATE_")


class Checks:
    """Compares the facts with the submissions."""

    def __init__(self, fleet: Fleet, submissions: list[Submission], facts: Facts, record: FaultRecord) -> None:
        self._fleet = fleet
        self._facts = facts
        self._record = record
        self._submissions = submissions
        self._jobs = {job.spec.labels[NUMBER]: job for job in facts.jobs}
        self._pairs = [
            (submission, self._jobs[str(submission.number)])
            for submission in submissions
            if str(submission.number) in self._jobs
        ]

    def complaints(self) -> list[str]:
        """Return a sentence for everything that is not as it must be."""
        checks = (
            self.every_job_is_there_once,
            self.every_job_ended_as_it_must,
            self.every_push_took_effect_once,
            self.every_webhook_was_called,
            self.every_log_is_whole,
            self.timelines_are_consistent,
            self.answers_were_clear,
        )
        return [f"{check.__name__}: {complaint}" for check in checks for complaint in check()]

    def every_job_is_there_once(self) -> Iterator[str]:
        """One job for each submission, however often it was made, and no other jobs."""
        by_number = defaultdict(list)
        for job in self._facts.jobs:
            by_number[job.spec.labels[NUMBER]].append(job.job_id)
        for submission in self._submissions:
            job_ids = by_number.pop(str(submission.number), [])
            if len(job_ids) != 1 or set(job_ids) != submission.job_ids:
                where = f"submission {submission.number} ({submission.workload.name})"
                yield f"{where} was answered {submission.job_ids}, and is there as {job_ids}"
        for number, job_ids in by_number.items():
            yield f"nobody submitted {number!r}: {job_ids}"

    def every_job_ended_as_it_must(self) -> Iterator[str]:
        """Each in the one right state for its workload, or lost in every one of its attempts."""
        for submission, job in self._pairs:
            state, workload = (state_of(job), job.reason), submission.workload
            waited = (job.start_time.ToMicroseconds() - job.create_time.ToMicroseconds()) / 1e6
            if job.HasField("start_time") and waited < workload.delay:
                yield f"{job.job_id} was to wait for {workload.delay} s, and waited for {waited:.3f} s"
            right = {(workload.state, workload.reason)}
            if submission.cancel_after is not None:
                # If the agent does not end by itself there is one right end; otherwise it depends on which was faster.
                right = {("CANCELLED", ""), *right} if workload.may_outrun_cancel else {("CANCELLED", "")}
            if state in right or not (complaint := self._not_lost(job)):
                continue
            where = f"{job.job_id} ({workload.name}, {submission.number}) on {job.cell_id}"
            yield f"{where} ended {state} and not {right}: {job.message} [{complaint}]"

    def _not_lost(self, job: job_pb2.Job) -> str:
        """Say why faults do not excuse a job's end, or '': each of its attempts must have been lost to a fault."""
        executions = self._facts.executions[job.job_id]
        if job.state != job.STATE_FAILED or job.reason not in CAN_BE_LOST:
            return "it was not lost"
        refused = {row["attempt"] for row in executions if row["reason"] == DISK_FULL}  # these use up no attempt
        attempts = self._facts.attempts(job.job_id) - len(refused)
        if attempts != MAX_ATTEMPTS:
            return f"it had {attempts} of {MAX_ATTEMPTS} attempts"
        for row in executions:
            if row["reason"] == "RUNNER_LOST" and row["execution_id"] not in self._record.runners_killed:
                return f"the runner of {row['execution_id']} was lost, and nobody had killed it"
        reasons = {row["reason"] for row in executions if row["purpose"] == "AGENT" and row["reason"]}
        return "" if reasons <= {*CAN_BE_LOST, DISK_FULL} else f"its attempts ended with {reasons}"

    def every_push_took_effect_once(self) -> Iterator[str]:
        """The branch's ref changed once, from nothing to the job's commit, and never if nothing was to be pushed."""
        changes = dict(self._facts.pushes)
        for submission, job in self._pairs:
            branch = f"boatyard/{job.job_id}"
            moves = changes.pop(f"refs/heads/{branch}", [])
            where = f"{job.job_id} ({submission.workload.name}, {state_of(job)} {job.reason})"
            if not (submission.workload.pushes and job.state == job.STATE_SUCCEEDED):
                lost = job.state == job.STATE_FAILED and job.reason in CAN_BE_LOST and submission.workload.pushes
                if len(moves) > lost:
                    yield f"{where} was not to push, and its ref changed: {moves}"
                continue
            if complaint := self._wrong_pushes(job, moves):
                yield f"{where} has commit {job.output.commit_id!r}, and its ref changed: {moves}: {complaint}"
                continue
            remote = self._fleet.remotes[job.spec.repository_id]
            for name, content in submission.workload.files.items():
                if (pushed := remote.git("show", f"{branch}:{name}")) != content:
                    yield f"{where} has {name} as {pushed!r} and not {content!r}"
        for ref, moves in changes.items():
            yield f"nobody was to change {ref}, and it changed: {moves}"

    def _wrong_pushes(self, job: job_pb2.Job, moves: list[tuple[str, str]]) -> str:
        """Say what is wrong with a branch's changes: one is right, and one more for each attempt lost while pushing."""
        pushing = {row["attempt"] for row in self._facts.stages[job.job_id] if row["name"] == "push"}
        rows = [row for row in self._facts.executions[job.job_id] if row["attempt"] in pushing]
        commits = {json.loads(row["output"])["commit_id"] for row in rows} - {""}
        if [old for old, _ in moves] != ["", *(new for _, new in moves[:-1])]:
            return "it did not begin with nothing, or somebody else changed it in between"
        if len({new for _, new in moves}) != len(moves) or len(moves) > len(pushing):
            return f"it was changed more often than its attempts {pushing} could"
        if not {new for _, new in moves} <= commits or moves[-1][1] != job.output.commit_id:
            return f"its attempts have {commits}"
        return ""

    def every_webhook_was_called(self) -> Iterator[str]:
        """At least one call for each event, each under one key with one body, and none for an event that was not."""
        bodies, keys = defaultdict(set), defaultdict(set)
        for received in self._facts.received:
            bodies[received.message_id].add(received.body)
            event = received.json
            keys[event["data"]["job"]["jobId"], event["type"], event["data"]["hook_id"]].add(received.message_id)
        for key, variants in bodies.items():
            if len(variants) != 1:
                yield f"call {key} came with {len(variants)} bodies: {_difference(*sorted(variants)[:2])}"
        calls = defaultdict(list)
        for (job_id, event, _), keys_of_hook in keys.items():
            calls[job_id, event.removeprefix("job.")].append(len(keys_of_hook))
        for submission, job in self._pairs:
            attempts = self._facts.attempts(job.job_id)
            for event, expected in self._events(submission, job).items():
                counts = calls.pop((job.job_id, event), [])
                where = f"{job.job_id} ({submission.workload.name}, {state_of(job)} {job.reason}) {event}"
                if expected and len(counts) != 1:
                    yield f"{where} was reported by {len(counts)} hooks, and one is registered"
                elif any(count > attempts for count in counts):
                    yield f"{where} was reported under {counts} keys in {attempts} attempts"
                elif expected is False and counts:
                    yield f"{where} was reported, and there was no such event"

    def _events(self, submission: Submission, job: job_pb2.Job) -> dict[str, bool | None]:
        """Return for each event whether it must be reported; None if it may be."""
        lost = job.state == job.STATE_FAILED and job.reason in CAN_BE_LOST
        succeeded = job.state == job.STATE_SUCCEEDED
        return {
            "pre": None if lost or job.state == job.STATE_CANCELLED else not submission.workload.is_vetoed,
            "post": None if (succeeded and submission.cancel_after is not None) or lost else succeeded,
            "error": job.state == job.STATE_FAILED,
        }

    def every_log_is_whole(self) -> Iterator[str]:
        """Every execution that has ended has events without gaps or duplicates, and what its agent wrote, once."""
        coordinators = {machine.cell_id() for machine in self._fleet.coordinators}
        for submission, job in self._pairs:
            for row in self._facts.executions.get(job.job_id, []):
                log = self._facts.logs.get(row["execution_id"])
                if log is None:
                    if row["start_time"] is not None and not self._record.lost_for_good:
                        yield f"{row['execution_id']} of {job.job_id} began, and no machine has its events"
                    continue
                if row["start_time"] is None:  # its cell was lost before it could report the start
                    log = replace(log, relayed=log.sequences)
                if (
                    row["cell_id"] in coordinators and row["reason"] == "NODE_LOST"
                ):  # it was lost before it could send the rest
                    log = replace(log, relayed=[*log.relayed, *log.sequences[len(log.relayed) :]])
                if complaint := _broken(log):
                    told = f"{row['purpose']} on {row['cell_id']}, {row['state']} {row['reason']}".rstrip()
                    yield f"{row['execution_id']} of {job.job_id} ({told}): {complaint}"
                if row["purpose"] == "AGENT" and (complaint := _wrong_output(submission, row["reason"], job, log)):
                    yield f"{row['execution_id']} of {job.job_id} ({submission.workload.name}): {complaint}"

    def timelines_are_consistent(self) -> Iterator[str]:
        """Each stage follows the one before it, none runs twice, and only one attempt does what others can see."""
        for job_id, stages in self._facts.stages.items():
            pushed = [row["attempt"] for row in stages if row["name"] == "push" and row["state"] == "DONE"]
            if len(pushed) > 1:
                yield f"{job_id} pushed in its attempts {pushed}"
            for attempt in {row["attempt"] for row in stages}:
                rows = [row for row in stages if row["attempt"] == attempt]
                names = [row["name"] for row in rows]
                if len(set(names)) != len(names):
                    yield f"{job_id}, attempt {attempt}: stages twice: {names}"
                for before, after in pairwise(rows):
                    if (before["name"], after["name"]) == ("hooks", "error"):
                        continue  # whoever ends a lost attempt chooses its hooks after its failure was recorded
                    if before["state"] == "DONE" and after["start_time"] < before["end_time"]:
                        yield f"{job_id}, attempt {attempt}: {after['name']} began before {before['name']} had ended"

    def answers_were_clear(self) -> Iterator[str]:
        """Callers learned that something was down, and never got an internal error."""
        for answer, count in self._fleet.unclear.items():
            yield f"{count} times {answer}"


def _broken(log: Log) -> str:
    if log.sequences != list(range(1, len(log.sequences) + 1)):
        gaps = [(a, b) for a, b in pairwise([0, *log.sequences]) if b != a + 1]
        return f"its events have gaps or duplicates between {gaps[:5]}"
    if log.relayed != log.sequences:
        return f"it has {len(log.sequences)} events, and a gateway relays {len(log.relayed)}"
    return "" if log.last_state in {"SUCCEEDED", "FAILED", "CANCELLED"} else f"its last state is {log.last_state!r}"


def _wrong_output(submission: Submission, reason: str, job: job_pb2.Job, log: Log) -> str:
    expected = submission.workload.output
    if expected is None:
        return ""
    whole = reason == submission.workload.reason and job.state != job.STATE_CANCELLED
    if whole and log.stdout != expected:
        return f"wrote {log.stdout[-80:]!r}, {len(log.stdout)} bytes, and not {expected[-80:]!r}, {len(expected)}"
    return "" if expected.startswith(log.stdout) else f"wrote {log.stdout[-80:]!r}"


def _difference(one: bytes, other: bytes) -> str:
    at = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return f"…{one[max(0, at - 30) : at + 50]!r} and …{other[max(0, at - 30) : at + 50]!r}"
