"""What may be asked of executions: start, look, list, wait, stop. Each active one has a task that stays to its end."""

import asyncio
import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import structlog

from services.common.db.columns import from_microseconds
from services.common.db.fences import Fences
from services.common.db.paging import Page
from services.common.errors import AlreadyExists, FailedPrecondition, NotFound
from services.common.fence import current_fence
from services.execution.admission import Admission
from services.execution.loop.access import Access
from services.execution.model import ACTIVE, Execution, Filter, StartRequest, State
from services.execution.rundir import RunDirectory, StopRequest
from services.execution.runner.group import Places
from services.execution.runners import Runners
from services.execution.store import ExecutionStore
from services.execution.supervision import Supervision
from services.sandbox import container_engines
from services.sandbox.errors import NotMountedError, SandboxUnavailableError
from services.sandbox.launch import check_mounted
from services.sandbox.probe import probe
from services.sandbox.spec import Container, Tier

_LOOK_AGAIN_S = 5.0

log = structlog.get_logger()


@dataclass(slots=True)
class _Active:
    """An execution that has not ended, as this process knows it."""

    supervision: Supervision
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class ExecutionManager:
    """Owns the executions of one data directory."""

    def __init__(
        self,
        store: ExecutionStore,
        fences: Fences,
        admission: Admission,
        access: Access | None,
        *,
        places: Places,
    ) -> None:
        """Without `access` no model is reached from here. `places` is where runners make control groups."""
        self._store = store
        self._fences = fences
        self._runs = admission.runs
        self._admission = admission
        self._starting = asyncio.Lock()
        self._access = access
        self._runners = Runners(b"" if access is None else access.to_bytes(), places)
        self._active: dict[str, _Active] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._sandbox_works = False

    async def recover(self) -> None:
        """Find what an earlier life of this service left: living runners, results, and what was never begun."""
        active = await self._store.active()
        for execution in active:
            self._supervise(execution, fresh=False)
        self._runners.warm_up()
        if active:
            log.info("executions found again", count=len(active))

    async def aclose(self) -> None:
        """Leave the runners to themselves."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for active in self._active.values():
            active.supervision.abandon()
        self._runners.close()

    async def start(self, request: StartRequest) -> Execution:
        """Start an execution, or return it as it is when it was started before.

        Raises:
            AlreadyExists: REQUEST_ID_REUSED, the id has another specification.
            FailedPrecondition: STALE_FENCE, SANDBOX_UNAVAILABLE, WORKSPACE_NOT_MOUNTED, or MODEL_KEY_MISSING.
            Exhausted: TOO_MANY_EXECUTIONS or NODE_BUSY.
        """
        await self._fences.check(current_fence())
        made = request.plan.sandbox.container
        if made is not None and await self._store.find(request.execution_id) is None:
            # Before others would wait for it: an engine may take its time.
            await self._check_container(made, request.execution_id)
        # In a task of its own: a caller that goes away in the midst of it, as a killed gateway does, would otherwise
        # leave an execution that is recorded, and that nobody carries.
        beginning = asyncio.create_task(self._begin(request))
        self._tasks.add(beginning)
        beginning.add_done_callback(self._let_go)
        return await asyncio.shield(beginning)

    async def _begin(self, request: StartRequest) -> Execution:
        async with self._starting:
            known = await self._store.find(request.execution_id)
            if known is not None:
                return _same(known, request.digest)
            self._admission.check(len(self._active))
            self._check_model(request)
            await self._check_sandbox(request)
            with _refusing(request.execution_id):
                await asyncio.to_thread(check_mounted, request.plan.sandbox)
            execution = Execution(
                execution_id=request.execution_id,
                digest=request.digest,
                purpose=request.purpose,
                job_id=request.job_id,
                sandbox_tier=request.plan.sandbox.tier,
                create_time=datetime.now(UTC),
            )
            # The directory comes first: a record without one could not be started after a crash.
            await asyncio.to_thread(self._lay_out, request)
            await self._store.add(execution)
            self._supervise(execution, fresh=True)
        return execution

    async def get(self, execution_id: str) -> Execution:
        """Return one execution. Raises NotFound."""
        execution = await self._store.find(execution_id)
        if execution is None:
            raise NotFound("execution", execution_id)
        if execution.state is State.PENDING:
            # Its runner may have begun, and told its viewers so, a moment before it is recorded.
            began = self.run_directory(execution_id).started_time_ns()
            if began is not None:
                return replace(execution, state=State.RUNNING, start_time=from_microseconds(began // 1000))
        return execution

    async def page(self, wanted: Filter, page: Page) -> tuple[list[Execution], str]:
        """Return a page of executions, the newest first, and the token of the next page."""
        return await self._store.page(wanted, page)

    async def wait(self, execution_id: str, seconds: float) -> Execution:
        """Return an execution when it has ended, or as it is after `seconds`. Raises NotFound."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            active = self._active.get(execution_id)
            execution = await self.get(execution_id)
            left = deadline - asyncio.get_running_loop().time()
            if execution.state.is_final or left <= 0:
                return execution
            await _set_within(active.ended if active else None, min(left, _LOOK_AGAIN_S))

    async def stop(self, execution_id: str, grace_s: float) -> Execution:
        """Ask an execution to end; returns at once.

        Raises:
            NotFound: there is none.
            FailedPrecondition: STALE_FENCE, or EXECUTION_STATE, it has ended.
        """
        await self._fences.check(current_fence())
        execution = await self.get(execution_id)
        if execution.state.is_final:
            raise ended_already(execution)
        await asyncio.to_thread(self.run_directory(execution_id).request_stop, StopRequest(grace_s))
        return await self.get(execution_id)

    def run_directory(self, execution_id: str) -> RunDirectory:
        """Where an execution's events are."""
        return RunDirectory(self._runs / execution_id)

    def active_runs(self) -> list[RunDirectory]:
        """Return those of the executions that have not ended."""
        return list(map(self.run_directory, self._active))

    def has_ended(self, execution_id: str) -> bool:
        """Whether a known execution's record is final; nothing is appended to its events after that."""
        active = self._active.get(execution_id)
        return active is None or active.ended.is_set()

    async def ended(self, execution_id: str) -> None:
        """Wait for the end of a known execution."""
        if (active := self._active.get(execution_id)) is not None:
            await active.ended.wait()

    async def ended_within(self, execution_id: str, seconds: float) -> bool:
        """Wait for the end of a known execution, at most so long."""
        active = self._active.get(execution_id)
        return active is None or await _set_within(active.ended, seconds)

    def _let_go(self, beginning: asyncio.Task[Execution]) -> None:
        self._tasks.discard(beginning)
        if not beginning.cancelled():
            beginning.exception()  # told to the caller, who may have left

    def _check_model(self, request: StartRequest) -> None:
        if request.plan.task is not None and self._access is None:
            raise FailedPrecondition(
                "MODEL_KEY_MISSING",
                "engine anthropic needs a key, and the execution service has none: set ANTHROPIC_API_KEY in its"
                " environment, and start it again",
                request.execution_id,
            )

    async def _check_container(self, made: Container, execution_id: str) -> None:
        def check() -> None:
            engine = container_engines.find(made.engine)
            if not made.may_pull and not container_engines.has_image(engine, made.image):
                raise container_engines.missing_image(engine, made.image)

        with _refusing(execution_id):
            await asyncio.to_thread(check)

    async def _check_sandbox(self, request: StartRequest) -> None:
        if request.plan.sandbox.tier is not Tier.BUBBLEWRAP or self._sandbox_works:
            return
        with _refusing(request.execution_id):
            await asyncio.to_thread(probe)
        self._sandbox_works = True

    def _lay_out(self, request: StartRequest) -> None:
        run = self.run_directory(request.execution_id)
        if run.path.exists():  # made before a crash, and never recorded
            shutil.rmtree(run.path)
        run.create(request.plan, request.stdin)

    def _supervise(self, execution: Execution, *, fresh: bool) -> None:
        async def on_begin(time_ns: int) -> None:
            await self._store.set_running(execution.execution_id, time_ns)

        run = self.run_directory(execution.execution_id)
        active = _Active(Supervision(execution.execution_id, run, self._runners, on_begin))
        self._active[execution.execution_id] = active
        task = asyncio.create_task(self._stay(execution, active, fresh=fresh))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _stay(self, execution: Execution, active: _Active, *, fresh: bool) -> None:
        while True:
            try:
                result = await active.supervision.result(fresh=fresh)
                await self._store.finish(execution, result)
                break
            except Exception:  # a full disk, a locked database: it passes, and the execution must not be forgotten
                log.exception("the end of an execution cannot be recorded yet", execution_id=execution.execution_id)
                await asyncio.sleep(_LOOK_AGAIN_S)
        log.info("execution ended", execution_id=execution.execution_id, state=result.state, reason=result.reason)
        active.ended.set()
        del self._active[execution.execution_id]


def ended_already(execution: Execution) -> FailedPrecondition:
    """Make the error for what can be asked of an active execution alone: EXECUTION_STATE, with its state."""
    how = execution.state if execution.state.is_final else "it is just ending"
    return FailedPrecondition(
        "EXECUTION_STATE",
        f"execution {execution.execution_id} has ended already: {how}",
        execution.execution_id,
        state=execution.state,
        allowed_states=ACTIVE,
    )


@contextlib.contextmanager
def _refusing(execution_id: str) -> Iterator[None]:
    """Say in the contract's words what keeps an execution from its sandbox."""
    try:
        yield
    except NotMountedError as error:
        raise FailedPrecondition("WORKSPACE_NOT_MOUNTED", str(error), execution_id) from error
    except SandboxUnavailableError as error:
        raise FailedPrecondition("SANDBOX_UNAVAILABLE", str(error), execution_id) from error


def _same(known: Execution, digest: bytes) -> Execution:
    if known.digest != digest:
        raise AlreadyExists(
            "execution",
            known.execution_id,
            reason="REQUEST_ID_REUSED",
            message=f"execution {known.execution_id} was started with another specification",
        )
    return known


async def _set_within(event: asyncio.Event | None, seconds: float) -> bool:
    if event is None:
        await asyncio.sleep(seconds)
        return False
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
