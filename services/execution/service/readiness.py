"""Finds out whether executions could run on this machine now, before a job is brought here."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from services.execution.service.admission import Admission, without_sandbox
from services.execution.settings import ExecutionSettings
from services.sandbox import container_engines
from services.sandbox.errors import SandboxUnavailableError
from services.sandbox.probe import probe
from services.sandbox.spec import Tier

_TRUSTED_S: Final = 60.0
"""How long a sandbox that worked is not tried again."""


class Readiness:
    """Checks that raise what an execution would be refused with. `try_sandbox` starts a sandbox; it blocks."""

    def __init__(
        self, admission: Admission, settings: ExecutionSettings, try_sandbox: Callable[[], None] = probe
    ) -> None:
        self._admission = admission
        self._settings = settings
        self._try_sandbox = try_sandbox
        self._trusted_until = float("-inf")  # monotonic

    async def check_resources(self) -> None:
        """Raise Exhausted (NODE_BUSY) while the machine has too little memory, disk space or processor time."""
        self._admission.check(active=0)

    async def check_sandbox(self) -> None:
        """Raise SANDBOX_UNAVAILABLE, or DISK_FULL, unless executions that name no tier can have their sandbox."""
        if time.monotonic() < self._trusted_until:
            return
        try:
            await asyncio.to_thread(self._try_tier)
        except SandboxUnavailableError as error:
            raise without_sandbox(str(error), "sandbox") from error
        self._trusted_until = time.monotonic() + _TRUSTED_S

    def _try_tier(self) -> None:
        settings = self._settings
        if settings.sandbox_tier is not Tier.NONE and (missing := settings.missing_paths()):
            raise without_sandbox(missing, "sandbox")
        if settings.sandbox_tier is Tier.BUBBLEWRAP:
            self._try_sandbox()
        if settings.sandbox_tier is Tier.CONTAINER:
            engine, image = container_engines.find(settings.container_engine), settings.container_image
            if image and settings.container_pull == "never" and not container_engines.has_image(engine, image):
                raise container_engines.missing_image(engine, image)
