"""The session that an agent may go on in: that of its job's last agent on this machine, which has left it in HOME."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

from services.execution.model import LAST_SESSION, SESSION_VARIABLE, StartRequest
from services.execution.service.store import ExecutionStore


class Sessions:
    """Tells agents where to go on."""

    def __init__(self, store: ExecutionStore) -> None:
        self._store = store

    async def told(self, request: StartRequest) -> StartRequest:
        """Return a request whose program knows the session to go on in, if there may be one."""
        sandbox = request.plan.sandbox
        if not request.resumes or sandbox.home is None or not await asyncio.to_thread(_has_files, sandbox.home):
            return request
        session = await self._store.last_session(request.job_id)
        if session is None:
            return request
        told = {**sandbox.environment, SESSION_VARIABLE: (session or LAST_SESSION).encode()}
        return replace(request, plan=replace(request.plan, sandbox=replace(sandbox, environment=told)))


def _has_files(home: Path) -> bool:
    try:
        with os.scandir(home) as entries:
            return next(entries, None) is not None
    except OSError:
        return False
