"""The operations on workspaces, with their writes ordered so that a crash does no harm."""

import asyncio
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import structlog

from services.common.db.fences import Fences
from services.common.db.paging import Page
from services.common.errors import FailedPrecondition, NotFound, RequestIdReused, ServiceError
from services.common.fence import current_fence
from services.sandbox import layer_locks
from services.workspace.drivers import Choice, Driver, DriverError
from services.workspace.homes import Homes, home_of
from services.workspace.locks import WorkspaceLocks
from services.workspace.model import SETTABLE_STATES, Filter, NewWorkspace, State, Visibility, Workspace, WorkspaceView
from services.workspace.store import WorkspaceStore
from services.workspace.trees import WorkspaceTrees
from services.workspace.usage import Usage, UsageMeter

T = TypeVar("T")

_SWEEP_INTERVAL_S = 600.0
_MEASURE_INTERVAL_S = 60.0

_log = structlog.get_logger()


class WorkspaceManager:
    """Makes, records and removes workspaces.

    Files are made before the record, and removed before it, so a record in any state but CLEANING always has its
    files. Files without a record are leftovers, which the next start removes.
    """

    def __init__(
        self, store: WorkspaceStore, fences: Fences, trees: WorkspaceTrees, choice: Choice, meter: UsageMeter
    ) -> None:
        self._store = store
        self._fences = fences
        self._trees = trees
        self._choice = choice
        self._usage = meter
        self._locks = WorkspaceLocks()
        self._homes = Homes(store, trees, choice, self._locks, meter.max_bytes)
        self._tasks: set[asyncio.Task[Any]] = set()

    async def create(self, request: NewWorkspace) -> WorkspaceView:
        """Make a workspace, or return the one that the same request made before.

        Raises RequestIdReused, NotFound("base"), Exhausted (DISK_FULL, WORKSPACES_QUOTA).
        """
        workspace_id = request.workspace_id
        async with self._locks.held(workspace_id):
            await self._fences.check(current_fence())
            existing = await self._store.find(workspace_id)
            if existing is not None and existing.state is State.CLEANING:
                await self._remove(existing)
            elif existing is not None:
                if not existing.was_asked_for_by(request):
                    raise RequestIdReused("workspace", workspace_id)
                return self._view(existing)
            await self.check_quota()
            for_host = request.visibility is Visibility.HOST
            driver = self._choice.for_host if for_host else self._choice.chosen
            async with self._homes.taken_over(request) as earlier:
                await self._make_files(request, driver, earlier)
            now = datetime.now(UTC)
            workspace = Workspace(
                workspace_id=workspace_id,
                state=State.ACTIVE,
                driver=driver.name,
                base_layers=request.base_layers,
                pins_path=request.pins_path,
                visibility=request.visibility,
                labels=request.labels,
                files_digest=request.files_digest,
                home_workspace_id=earlier,
                create_time=now,
                update_time=now,
            )
            await self._store.add(workspace)
            return self._view(workspace)

    async def check_quota(self) -> None:
        """Raise Exhausted (DISK_FULL, WORKSPACES_QUOTA) when there may be no further workspace."""
        if self._usage.is_bounded:
            self._usage.admit(await self._store.active())

    async def get(self, workspace_id: str) -> WorkspaceView:
        """Return a workspace. Raises NotFound."""
        return self._view(await self._find(workspace_id))

    async def page(self, wanted: Filter, page: Page) -> tuple[list[WorkspaceView], str]:
        """Return a page, the newest first, and the token of the next one."""
        workspaces, token = await self._store.page(wanted, page)
        return [self._view(workspace) for workspace in workspaces], token

    async def usage(self, page: Page) -> Usage:
        """Return the disk use of the workspaces of a page and of all, and the free space."""
        workspaces, token = await self._store.page(Filter(), page)
        uses = [
            (workspace, await self._usage.use(workspace.workspace_id, *self._measured(workspace)))
            for workspace in workspaces
        ]
        return Usage(uses, self._usage.total(), self._usage.disk(), self._choice, token)

    async def set_state(self, workspace_id: str, state: State, keep_for: timedelta | None = None) -> WorkspaceView:
        """Record how the work ended, and for how long from now the workspace is kept.

        Raises NotFound, FailedPrecondition(WORKSPACE_STATE) while it is being removed.
        """
        async with self._locks.held(workspace_id):
            await self._fences.check(current_fence())
            workspace = await self._find(workspace_id)
            if workspace.state is State.CLEANING:
                raise FailedPrecondition(
                    "WORKSPACE_STATE",
                    f"workspace {workspace_id!r} is being removed",
                    workspace_id,
                    state=workspace.state,
                    allowed_states=[State.ACTIVE, *SETTABLE_STATES],
                )
            now = datetime.now(UTC)
            if workspace.state is not state:
                await self._store.set_state(workspace_id, state, now)
            if keep_for is not None:
                await self._store.set_expire_time(workspace_id, now + keep_for)
            return await self.get(workspace_id)

    async def delete(self, workspace_id: str) -> None:
        """Remove a workspace and its files. Does nothing when there is none.

        Continues when the caller disconnects: removing a large tree may take longer than the deadline.
        """
        await asyncio.shield(self._start(self._remove_alone(workspace_id)))

    async def sweep(self, max_age: timedelta, project_id: str = "") -> list[str]:
        """Remove what is not ACTIVE and has expired, or was last updated longer ago than `max_age`.

        With `project_id`, only what is of that project. Returns the ids of the removed ones. What is held, or cannot
        be removed, is logged and left to the next sweep.
        """
        await self._fences.check(current_fence())
        now = datetime.now(UTC)
        return await self._remove_all(await self._store.stale(now, now - max_age, project_id))

    async def run_retention(self, max_age: timedelta) -> None:
        """Remove expired workspaces regularly, until cancelled. One with an expiry time is kept until then."""
        while True:
            try:
                now = datetime.now(UTC)
                await self._remove_all(await self._store.over(now, now - max_age))
            except Exception:  # noqa: BLE001 - logged, and the next round is a new chance
                _log.exception("could not sweep")
            await asyncio.sleep(_SWEEP_INTERVAL_S)

    async def run_measuring(self) -> None:
        """Measure all workspaces regularly, until cancelled."""
        while True:
            try:
                for workspace in await self._store.all():
                    await self._usage.use(workspace.workspace_id, *self._measured(workspace))
            except Exception:  # noqa: BLE001 - logged, and the next round is a new chance
                _log.exception("could not measure the workspaces")
            await asyncio.sleep(_MEASURE_INTERVAL_S)

    async def recover(self) -> None:
        """Make files, mounts and records consistent, however the service ended last. Called before serving."""
        workspaces = await self._store.all()
        await self._trees.recover({workspace.workspace_id for workspace in workspaces})
        for workspace in workspaces:
            if workspace.state is State.CLEANING:
                self._start(self._remove_alone(workspace.workspace_id))
            else:
                await self._mend(workspace)
        self._start(self._clean(None))

    async def aclose(self) -> None:
        """Stop removals, and unmount what nobody uses; the next start continues from there."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._trees.unmount_idle)

    async def _mend(self, workspace: Workspace) -> None:
        workspace_id, driver = workspace.workspace_id, self._choice.drivers[workspace.driver]
        place = self._trees.place(workspace_id)
        if not driver.is_filled(place):
            _log.error("the files of a workspace are gone", workspace_id=workspace_id)
            await self._store.set_state(workspace_id, State.ERROR, datetime.now(UTC))
        elif not driver.is_ready(place):
            try:
                await driver.make_ready(place, workspace.base_layers)
                _log.info("mounted the layers of a workspace again", workspace_id=workspace_id)
            except DriverError as error:
                _log.error("cannot mount the layers of a workspace", workspace_id=workspace_id, error=str(error))

    async def _make_files(self, request: NewWorkspace, driver: Driver, earlier: str) -> None:
        owner = self._homes.owner(request, earlier)
        try:
            await self._trees.create(request, driver, owner, self._homes.beginning(request, owner, earlier))
        except asyncio.CancelledError:
            self._start(self._clean(request.workspace_id))
            raise
        except Exception:
            await self._clean(request.workspace_id)
            raise

    async def _remove_all(self, workspace_ids: Sequence[str]) -> list[str]:
        removals = {
            workspace_id: self._start(self._remove_alone(workspace_id, spare_active=True))
            for workspace_id in workspace_ids
        }
        if removals:
            await asyncio.wait(removals.values())
        return [
            workspace_id
            for workspace_id, task in removals.items()
            if not task.cancelled() and task.exception() is None and task.result()
        ]

    async def _remove_alone(self, workspace_id: str, *, spare_active: bool = False) -> bool:
        """Remove a workspace, exclusively; return whether it is gone."""
        async with self._locks.held(workspace_id):
            # Only now: while we waited, the job may have got a new owner, or the id a new workspace.
            await self._fences.check(current_fence())
            workspace = await self._store.find(workspace_id)
            if workspace is None:
                return True
            if spare_active and workspace.state is State.ACTIVE:
                return False
            await self._remove(workspace)
            return True

    async def _remove(self, workspace: Workspace) -> None:
        workspace_id = workspace.workspace_id
        async with self._trees.locked(workspace_id, self._own_files(workspace)):
            await self._store.set_state(workspace_id, State.CLEANING, datetime.now(UTC))
            await self._trees.discard(workspace_id)
        await self._trees.clean(workspace_id)
        if workspace.pins_path is not None:  # also when somebody else has removed the files
            (workspace.pins_path / workspace_id).unlink(missing_ok=True)
        await self._store.remove(workspace_id)
        self._usage.forget(workspace_id)

    async def _find(self, workspace_id: str) -> Workspace:
        workspace = await self._store.find(workspace_id)
        if workspace is None:
            raise NotFound("workspace", workspace_id)
        return workspace

    def _view(self, workspace: Workspace) -> WorkspaceView:
        driver, place = self._choice.drivers[workspace.driver], self._trees.place(workspace.workspace_id)
        held_by = layer_locks.held_by(driver.own_files(place)) or ""
        home = home_of(place)
        layout = driver.layout(place, workspace.base_layers)
        return WorkspaceView(workspace, layout, held_by, home if home.is_dir() else None)

    def _own_files(self, workspace: Workspace) -> Path:
        return self._choice.drivers[workspace.driver].own_files(self._trees.place(workspace.workspace_id))

    def _measured(self, workspace: Workspace) -> tuple[Path, Path]:
        """Return the directories that count as a workspace's use of the disk."""
        return self._own_files(workspace), home_of(self._trees.place(workspace.workspace_id))

    async def _clean(self, workspace_id: str | None) -> None:
        """Remove discarded files. What cannot be removed is logged, and tried again by the next start."""
        try:
            await self._trees.clean(workspace_id)
        except DriverError as error:
            _log.error("cannot remove discarded files", workspace_id=workspace_id, error=str(error))

    def _start(self, work: Coroutine[None, None, T]) -> asyncio.Task[T]:
        """Run work that continues when its caller disconnects; `aclose` cancels it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, ServiceError):  # the caller gets that one
            _log.error("cannot remove a workspace; the next sweep or start tries again", error=str(error))
