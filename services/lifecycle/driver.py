"""The loop that claims jobs and runs them: up to its capacity at once, a task for each, and one heartbeat for all.

Stopping the loop stops no agent. The next driver of the same ledger continues where this one left off.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence

import structlog

from services.agent.providers import ModelProvider
from services.common import logs
from services.lifecycle.books import Books
from services.lifecycle.failures import Parked
from services.lifecycle.ledger import Beat, Lease, LeaseLost, Ledger, LedgerUnavailable
from services.lifecycle.life import run_job
from services.lifecycle.model.outcome import RetentionPeriods
from services.lifecycle.nodes import Nodes
from services.lifecycle.run import OUTAGE_PAUSE_SECONDS, JobRun
from services.lifecycle.webhooks import PUBLIC, AllowList, Webhooks

log = structlog.get_logger()


class Driver:
    """Runs up to `capacity` jobs at once. A new job waits at most `poll_seconds` when nobody calls `wake`."""

    def __init__(
        self,
        ledger: Ledger,
        nodes: Nodes,
        *,
        capacity: int,
        poll_seconds: float = 1.0,
        webhooks: Webhooks | None = None,
        retention_periods: RetentionPeriods | None = None,
        own_providers: Sequence[ModelProvider] = (),
        providers_allowed: AllowList = PUBLIC,
        outage_pause_seconds: float = OUTAGE_PAUSE_SECONDS,
        books: Books | None = None,
    ) -> None:
        """`own_providers` answer agents here after those that the ledger knows.

        `providers_allowed` is where the latter may be, beside at public addresses. Those that do not answer are left
        alone for `outage_pause_seconds` at first. `books` grant agents' requests to models; without any, the
        ledger's budgets do.
        """
        self._ledger = ledger
        self._nodes = nodes
        self._webhooks = webhooks or Webhooks()
        self._retention_periods = retention_periods or RetentionPeriods()
        self._own_providers = own_providers
        self._providers_allowed = providers_allowed
        self._books = books
        self._outage_pause_seconds = outage_pause_seconds
        self._capacity = capacity
        self._poll_seconds = poll_seconds
        self._jobs: dict[str, tuple[JobRun, asyncio.Task[None]]] = {}
        self._look = asyncio.Event()
        self._is_queue_empty = False
        self._beat_now = asyncio.Event()
        self._named: set[str] = set()  # since the last claim began, of jobs that we did not have

    @property
    def running_jobs(self) -> Mapping[str, int]:
        """Return the jobs that are running now, with their fences."""
        return {job_id: run.lease.fence for job_id, (run, _) in self._jobs.items()}

    def wake(self, job_id: str = "") -> None:
        """Look for work now: this job is new, or has been cancelled; without an id, any may be."""
        self._is_queue_empty = False
        self._look.set()
        if not job_id or job_id in self._jobs:
            self._beat_now.set()
        else:
            self._named.add(job_id)

    async def run(self) -> None:
        """Work until cancelled. Every job is then left as it is, and its agent keeps running."""
        beating = asyncio.create_task(self._beat(), name="heartbeat")
        try:
            while True:
                self._look.clear()
                await self._take()
                await _until(self._look, self._poll_seconds)
        finally:
            tasks = [beating, *(task for _, task in self._jobs.values())]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _take(self) -> None:
        """Claim while there is room and work."""
        self._is_queue_empty = False
        try:
            while len(self._jobs) < self._capacity and not self._is_queue_empty:
                self._named.clear()
                lease = await self._ledger.claim()
                if lease is None:
                    return
                self._begin(lease)
                self._is_queue_empty = lease.is_last
        except LedgerUnavailable as error:
            log.warning("the ledger is unavailable", error=str(error))
        except Exception:  # one failed round must not end the loop
            log.exception("claiming failed")

    def _begin(self, lease: Lease) -> None:
        previous = self._jobs.pop(lease.job_id, None)
        if previous is not None:  # our lease had expired, and we claimed the job again
            previous[1].cancel()
        job = JobRun(
            lease,
            self._ledger,
            self._nodes,
            self._webhooks,
            self._retention_periods,
            own_providers=self._own_providers,
            providers_allowed=self._providers_allowed,
            books=self._books,
            outage_pause_seconds=self._outage_pause_seconds,
        )
        task = asyncio.create_task(self._run_job(job), name=lease.job_id)
        self._jobs[lease.job_id] = (job, task)
        if lease.job_id in self._named:  # it may have been cancelled while it was claimed
            self._beat_now.set()

    async def _run_job(self, job: JobRun) -> None:
        lease = job.lease
        with logs.request(lease.job_id):
            log.info("job claimed", fence=lease.fence, attempt=lease.attempt)
            try:
                outcome = await run_job(job)
                if outcome is None:
                    log.info("the job will be retried", attempt=lease.attempt)
                else:
                    log.info("job ended", state=outcome.state, reason=outcome.failure.reason if outcome.failure else "")
            except Parked:
                log.info("the job waits for a person")
            except LeaseLost:
                log.warning("the job is no longer ours", fence=lease.fence)
            except Exception:  # a bug in one job must not affect the others
                log.exception("a job was dropped; it is claimed again when its lease has expired")
            finally:
                if self._jobs.get(lease.job_id, (None, None))[0] is job:
                    del self._jobs[lease.job_id]
                if not self._is_queue_empty:
                    self._look.set()

    async def _beat(self) -> None:
        """Renew all leases, one heartbeat at a time: two at once would lock each other's rows."""
        while True:
            self._beat_now.clear()
            sent = time.monotonic()
            beating_jobs = [job for job, _ in self._jobs.values()]
            try:
                beat = await self._ledger.beat([job.lease for job in beating_jobs])
            except LedgerUnavailable as error:
                log.warning("the ledger is unavailable", error=str(error))
                beat = None
            except Exception:  # a missing heartbeat is worse than a late one
                log.exception("the heartbeat failed")
                beat = None
            for job in beating_jobs:
                self._apply_beat(job, beat, sent)
            await _until(self._beat_now, self._ledger.lease_seconds / 3)

    def _apply_beat(self, job: JobRun, beat: Beat | None, sent: float) -> None:
        if beat is not None:
            job.apply_beat(beat, sent)
        lost = job.is_stale if beat is None else job.lease.job_id not in beat.held
        current = self._jobs.get(job.lease.job_id)
        if lost and current is not None and current[0] is job:
            log.warning("a lease is lost", job_id=job.lease.job_id, fence=job.lease.fence)
            current[1].cancel()


async def _until(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
