"""The HOME of the agents who work in a workspace: a directory beside its files, which is removed and counted with them.

The next workspace of the job takes it over by a rename, with the uid that owns it, so that a retry costs the same
whatever an agent has put there. Nothing in it is opened, and no link in it is followed.
"""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from services.common.room import is_out_of_room
from services.sandbox import host_uids, layer_locks
from services.workspace.drivers import Choice, DriverError
from services.workspace.drivers.disk import disk_full, tree_size
from services.workspace.drivers.threads import run_to_end
from services.workspace.locks import WorkspaceLocks
from services.workspace.model import Home, NewWorkspace, Visibility
from services.workspace.store import WorkspaceStore
from services.workspace.trees import WorkspaceTrees

_NAME: Final = "home"


def home_of(place: Path) -> Path:
    """Return where the agents of the workspace in a place have their HOME, if they have one."""
    return place / _NAME


def begin(place: Path, owner: int | None, earlier: Path | None) -> None:
    """Make a HOME for the uid `owner` (None: us), or take over that of the place `earlier`.

    Raises Exhausted(DISK_FULL), DriverError.
    """
    home = home_of(place)
    try:
        if earlier is not None:
            home_of(earlier).rename(home)
            home.chmod(0o700)  # an agent may have made it unusable, or open to all
            return
        home.mkdir(mode=0o700)
        if owner is not None:
            os.chown(home, owner, owner)
    except OSError as error:
        if is_out_of_room(error):
            raise disk_full(place) from error
        raise DriverError(f"cannot make {home}: {error.strerror}") from error


class Homes:
    """Finds the HOME that a new workspace takes over."""

    def __init__(
        self,
        store: WorkspaceStore,
        trees: WorkspaceTrees,
        choice: Choice,
        locks: WorkspaceLocks,
        max_bytes: int | None,
    ) -> None:
        """`max_bytes` is how large one workspace may grow."""
        self._store = store
        self._trees = trees
        self._choice = choice
        self._locks = locks
        self._max_bytes = max_bytes

    @asynccontextmanager
    async def taken_over(self, request: NewWorkspace) -> AsyncIterator[str]:
        """Keep for a new workspace the one whose HOME it takes over; yield its id, empty for none.

        Too large a HOME may be why the attempt before has failed.
        """
        earlier = await self._earlier(request)
        if not earlier:
            yield ""
            return
        async with self._locks.held(earlier):  # it may have been removed meanwhile
            yield earlier if await self._earlier(request) == earlier else ""

    async def _earlier(self, request: NewWorkspace) -> str:
        labels = request.labels
        if request.home is not Home.OF_JOB or not labels.job_id:
            return ""
        for known in await self._store.ended_of_job(labels.project_id, labels.job_id):
            place = self._trees.place(known.workspace_id)
            if home_of(place).is_dir():
                own_files = self._choice.drivers[known.driver].own_files(place)
                is_free = layer_locks.held_by(own_files) is None
                fits = is_free and await run_to_end(self._fits, home_of(place), request)
                return known.workspace_id if fits else ""
        return ""

    def owner(self, request: NewWorkspace, earlier: str) -> int | None:
        """Return the uid of a new workspace and its HOME, None for ours. Raises Exhausted."""
        if request.visibility is Visibility.HOST:
            return None
        return host_uids.owner(home_of(self._trees.place(earlier))) if earlier else self._choice.new_owner()

    def beginning(self, request: NewWorkspace, owner: int | None, earlier: str) -> Callable[[Path], None]:
        """Return what makes the HOME of a new workspace in its place, or takes it over, if it is to have one."""
        if request.home is None:
            return lambda _: None
        place = self._trees.place(earlier) if earlier else None
        return lambda new: begin(new, owner, place)

    def _fits(self, home: Path, request: NewWorkspace) -> bool:
        """True when a HOME belongs to somebody whom a new workspace can belong to, and leaves room for its files."""
        is_ours = host_uids.owner(home) is None
        is_for_us = request.visibility is Visibility.HOST or self._choice.owners is None
        most = request.max_home_bytes or (self._max_bytes or 0) // 2
        return is_ours == is_for_us and (not most or tree_size(home)[0] <= most)
