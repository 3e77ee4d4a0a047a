"""Starts, shows, lists and stops executions, and waits for them. A task follows each active one to its end."""

import asyncio
import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import structlog

from services.agent.engines import ENGINES
from services.agent.recordings import RecordingError
from services.common.db.columns import from_microseconds
from services.common.db.fences import Fences
from services.common.db.paging import Page
from services.common.errors import AlreadyExists, FailedPrecondition, Invalid, NotFound
from services.common.fence import current_fence
from services.execution.cgroups.group import ControlGroupHierarchies
from services.execution.inbox.asks import Asks
from services.execution.inbox.messages import Inbox
from services.execution.model import ACTIVE, Execution, Filter, Result, StartRequest, State
from services.execution.rundir.directory import RunDirectory, StopRequest
from services.execution.service import doors
from services.execution.service.admission import Admission, without_sandbox
from services.execution.service.given import GivenProviders
from services.execution.service.isolation import Isolation
from services.execution.service.live_use import LiveUse
from services.execution.service.runners import Runners
from services.execution.service.sessions import Sessions
from services.execution.service.store import ExecutionStore, ended
from services.execution.service.supervision import Supervision
from services.sandbox import container_engines, host_uids
from services.sandbox.container_engines import Engine
from services.sandbox.errors import NotMountedError, SandboxUnavailableError
from services.sandbox.launch import check_mounted
from services.sandbox.probe import probe
from services.sandbox.spec import Container, Tier

_LOOK_AGAIN_S = 5.0

log = structlog.get_logger()


@dataclass(slots=True)
class _Active:
    """What this process knows of an execution that has not ended; `started` is also set when it ends before that."""

    supervision: Supervision
    use: LiveUse
    started: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    unrecorded: Execution | None = None
    """How it ended, while the database has no room for that."""


class ExecutionManager:
    """Owns the executions of one data directory."""

    def __init__(
        self,
        store: ExecutionStore,
        fences: Fences,
        admission: Admission,
        isolation: Isolation,
        *,
        control_groups: ControlGroupHierarchies,
    ) -> None:
        """`control_groups` is where runners make their own."""
        self._store = store
        self._fences = fences
        self._runs = admission.runs
        self._admission = admission
        self._starting = asyncio.Lock()
        self._isolation = isolation
        self._runners = Runners(control_groups)
        self._given = GivenProviders()
        self._sessions = Sessions(store)
        self._active: dict[str, _Active] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._sandbox_works = False

    async def recover(self) -> None:
        """Follow what an earlier process of this service left: living runners, results, and runs that never began."""
        active = await self._store.active()
        for execution in active:
            self._supervise(execution, fresh=False)
        self._runners.warm_up()
        if active:
            log.info("following the executions of an earlier process", count=len(active))

    async def aclose(self) -> None:
        """Stop following the runners, which go on without us."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for active in self._active.values():
            active.supervision.abandon()
        self._runners.close()

    async def start(self, request: StartRequest) -> Execution:
        """Start an execution; one that was started before is returned as it is.

        Raises:
            AlreadyExists: REQUEST_ID_REUSED, the id has another specification.
            FailedPrecondition: STALE_FENCE, TIER_NOT_ALLOWED, NETWORK_NOT_ALLOWED, SANDBOX_UNAVAILABLE,
                WORKSPACE_NOT_MOUNTED, DOOR_UNAVAILABLE, MODEL_KEY_MISSING, or AGENT_NOT_INSTALLED.
            Exhausted: TOO_MANY_EXECUTIONS, NODE_BUSY or DISK_FULL.
        """
        await self._fences.check(current_fence())
        container = request.plan.sandbox.container
        if container is not None and await self._store.find(request.execution_id) is None:
            # Before taking the lock that other starts wait for: a container engine may be slow.
            engine = await self._check_container(container, request.execution_id)
            request = doors.fitting(request, engine)
        # In a task of its own: a caller that goes away meanwhile, as a killed gateway does, would otherwise leave an
        # execution that is recorded but that nobody runs.
        start = asyncio.create_task(self._begin(request))
        self._tasks.add(start)
        start.add_done_callback(self._discard_start)
        return await asyncio.shield(start)

    async def _begin(self, request: StartRequest) -> Execution:
        async with self._starting:
            known = await self._store.find(request.execution_id)
            if known is not None:
                repeated = _repeated(known, request.digest)
                if known.execution_id in self._active:
                    await self._given.give(known.execution_id, request.providers)
                return repeated
            await self._isolation.check(request)
            self._admission.check(len(self._active))
            doors.check_asked(request)
            if request.missing_agent:
                raise FailedPrecondition("AGENT_NOT_INSTALLED", request.missing_agent, request.execution_id)
            await self._check_sandbox(request)
            with _as_preconditions(request.execution_id):
                await asyncio.to_thread(check_mounted, request.plan.sandbox)
            execution = Execution(
                execution_id=request.execution_id,
                digest=request.digest,
                purpose=request.purpose,
                job_id=request.job_id,
                sandbox_tier=request.plan.sandbox.tier,
                network=request.plan.sandbox.network,
                host_uid=host_uids.of(request.plan.sandbox),
                leave_out=request.leave_out,
                reserves_model_use=request.plan.reserves_model_use,
                create_time=datetime.now(UTC),
            )
            request = await self._sessions.told(request)
            # The directory comes first: after a crash, a recorded execution without one could not be started.
            await asyncio.to_thread(self._create_directory, request)
            await self._store.add(execution)
            await self._given.give(request.execution_id, request.providers)
            self._supervise(execution, fresh=True)
        return execution

    async def get(self, execution_id: str) -> Execution:
        """Return one execution. Raises NotFound."""
        execution = await self._store.find(execution_id)
        if execution is None:
            raise NotFound("execution", execution_id)
        execution = self._as_known(execution)
        if execution.state is State.PENDING:
            # Its runner may have begun, and viewers may have seen that, a moment before it is recorded.
            began = self.run_directory(execution_id).started_time_ns()
            if began is not None:
                return replace(execution, state=State.RUNNING, start_time=from_microseconds(began // 1000))
        return execution

    async def with_use(self, execution: Execution) -> Execution:
        """Return an execution with what its models have used so far, if it runs."""
        active = self._active.get(execution.execution_id)
        if active is None or execution.state is not State.RUNNING:
            return execution
        return replace(execution, model_use=await active.use.so_far())

    async def page(self, filters: Filter, page: Page) -> tuple[list[Execution], str]:
        """Return a page of executions, the newest first, and the token of the next page."""
        executions, token = await self._store.page(filters, page)
        known = map(self._as_known, executions)
        return [each for each in known if not filters.states or each.state in filters.states], token

    def _as_known(self, execution: Execution) -> Execution:
        """Return a recorded execution with its end, if that is known and not recorded yet."""
        active = self._active.get(execution.execution_id)
        return execution if active is None else active.unrecorded or execution

    async def wait(self, execution_id: str, seconds: float, *, until_started: bool = False) -> Execution:
        """Return an execution as soon as it has ended, or has begun, or as it is after `seconds`. Raises NotFound."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            active = self._active.get(execution_id)
            execution = await self.get(execution_id)
            remaining_s = deadline - asyncio.get_running_loop().time()
            is_awaited = execution.state.is_final or (until_started and execution.state is not State.PENDING)
            if is_awaited or remaining_s <= 0:
                return await self.with_use(execution)
            awaited = None if active is None else active.started if until_started else active.ended
            await _set_within(awaited, min(remaining_s, _LOOK_AGAIN_S))

    async def stop(self, execution_id: str, grace_s: float) -> Execution:
        """Ask an execution to end; returns at once.

        Raises:
            NotFound: there is no such execution.
            FailedPrecondition: STALE_FENCE, or EXECUTION_STATE when it has ended.
        """
        await self._fences.check(current_fence())
        execution = await self.get(execution_id)
        if execution.state.is_final:
            raise ended_already(execution)
        await asyncio.to_thread(self.run_directory(execution_id).request_stop, StopRequest(grace_s))
        return await self.get(execution_id)

    def run_directory(self, execution_id: str) -> RunDirectory:
        """Return the directory of an execution, which has its events."""
        return RunDirectory(self._runs / execution_id)

    def active_runs(self) -> list[RunDirectory]:
        """Return the directories of the executions that have not ended."""
        return list(map(self.run_directory, self._active))

    def has_ended(self, execution_id: str) -> bool:
        """True when a known execution's record is final; nothing is appended to its events after that."""
        active = self._active.get(execution_id)
        return active is None or active.ended.is_set()

    async def ended(self, execution_id: str) -> None:
        """Wait for the end of a known execution."""
        if (active := self._active.get(execution_id)) is not None:
            await active.ended.wait()

    async def ended_within(self, execution_id: str, seconds: float) -> bool:
        """Wait for the end of a known execution, at most for `seconds`; True when it has ended."""
        active = self._active.get(execution_id)
        return active is None or await _set_within(active.ended, seconds)

    def _discard_start(self, start: asyncio.Task[Execution]) -> None:
        self._tasks.discard(start)
        if not start.cancelled():
            start.exception()  # marks it as retrieved: the caller, who would get it, may be gone

    async def _check_container(self, container: Container, execution_id: str) -> Engine:
        def check() -> Engine:
            engine = container_engines.find(container.engine)
            if not container.may_pull and not container_engines.has_image(engine, container.image):
                raise container_engines.missing_image(engine, container.image)
            return engine

        with _as_preconditions(execution_id):
            return await asyncio.to_thread(check)

    async def _check_sandbox(self, request: StartRequest) -> None:
        if request.plan.sandbox.tier is not Tier.BUBBLEWRAP or self._sandbox_works:
            return
        with _as_preconditions(request.execution_id):
            await asyncio.to_thread(probe)
        self._sandbox_works = True

    def _create_directory(self, request: StartRequest) -> None:
        run = self.run_directory(request.execution_id)
        if run.path.exists():  # made before a crash, but not recorded
            shutil.rmtree(run.path)
        engine = ENGINES[request.plan.engine]
        try:
            run.create(request.plan, request.stdin, request.recording)
            if engine.takes_messages or engine.asks_permission or request.converses:
                Inbox(run.path).create()
            if request.plan.asks_before_requests:
                Asks(run.path).create()
        except OSError:  # for lack of room, of which none of it may be kept
            shutil.rmtree(run.path, ignore_errors=True)
            raise
        except RecordingError as error:
            shutil.rmtree(run.path, ignore_errors=True)
            raise Invalid([("spec.replay.recording", str(error))]) from error

    def _supervise(self, execution: Execution, *, fresh: bool) -> None:
        async def on_begin(time_ns: int) -> None:
            await self._store.set_running(execution.execution_id, time_ns)
            active.started.set()

        run = self.run_directory(execution.execution_id)
        supervision = Supervision(execution.execution_id, run, self._runners, self._given, on_begin)
        active = _Active(supervision, LiveUse(run))
        self._active[execution.execution_id] = active
        task = asyncio.create_task(self._follow(execution, active, fresh=fresh))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self, execution: Execution, active: _Active, *, fresh: bool) -> None:
        result = await self._result(execution.execution_id, active, fresh=fresh)
        log.info("execution ended", execution_id=execution.execution_id, state=result.state, reason=result.reason)
        end = ended(execution, result)
        while True:
            try:
                await self._store.finish(end)
                break
            except Exception:  # a full disk or a locked database will pass, and the end must be recorded
                log.exception("the end of an execution cannot be recorded yet", execution_id=execution.execution_id)
                # Whoever asks is told all the same. After a restart we find the result in the run's directory.
                active.unrecorded = end
                _set(active)
                await asyncio.sleep(_LOOK_AGAIN_S)
        _set(active)
        del self._active[execution.execution_id]
        self._given.forget(execution.execution_id)

    async def _result(self, execution_id: str, active: _Active, *, fresh: bool) -> Result:
        while True:
            try:
                return await active.supervision.result(fresh=fresh)
            except Exception:  # a full disk will pass
                log.exception("the end of an execution cannot be told yet", execution_id=execution_id)
                await asyncio.sleep(_LOOK_AGAIN_S)


def _set(active: _Active) -> None:
    active.started.set()
    active.ended.set()


def ended_already(execution: Execution) -> FailedPrecondition:
    """Make the error for calls that need an active execution: EXECUTION_STATE, with its state."""
    text = f"has ended already: it is {execution.state}" if execution.state.is_final else "is just ending"
    return FailedPrecondition(
        "EXECUTION_STATE",
        f"execution {execution.execution_id} {text}",
        execution.execution_id,
        state=execution.state,
        allowed_states=ACTIVE,
    )


@contextlib.contextmanager
def _as_preconditions(execution_id: str) -> Iterator[None]:
    """Turn the sandbox library's errors into the contract's."""
    try:
        yield
    except NotMountedError as error:
        raise FailedPrecondition("WORKSPACE_NOT_MOUNTED", str(error), execution_id) from error
    except SandboxUnavailableError as error:
        raise without_sandbox(str(error), execution_id) from error


def _repeated(known: Execution, digest: bytes) -> Execution:
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
