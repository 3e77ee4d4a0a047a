"""One service as a process, whose environment has no secrets of other services.

If a service is broken into, or its memory or /proc is read, it reveals only its own secrets.
"""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from services.common.lock import take_over
from services.common.room import is_out_of_room
from services.common.supervision import LIFELINE_VARIABLE
from services.supervisor.plan import COORDINATOR, EVERY_SERVICE, GATEWAY, CellPlan, service_lock

LOG_BYTES = 16 << 20
_TAIL_BYTES = 4096
_DRAIN_S = 15.0
"""A service drains for 5 s; one that takes much longer is hanging, and is killed."""

_OWNERS: Final[Mapping[str, tuple[str, ...]]] = {
    # The database holds tokens of remotes and keys of webhooks.
    "BOATYARD_DATABASE_URL": (GATEWAY,),
    "BOATYARD_DATABASE_LISTEN_URL": (GATEWAY,),
    # The users' token; node services accept the cell's own token only.
    "BOATYARD_TOKEN": (GATEWAY, COORDINATOR),
    "AGENT_COMMAND": (GATEWAY,),
    # The gateway uses it for jobs that name none.
    "ANTHROPIC_MODEL": (GATEWAY,),
}
# The first prefix that matches counts. A service's own settings may hold secrets too.
_OWNERS_OF_PREFIXES: Final[Mapping[str, tuple[str, ...]]] = {
    # Who runs jobs gives them to agents that start, outside of their sandbox.
    **dict.fromkeys(("ANTHROPIC_", "OPENAI_", "GEMINI_", "GOOGLE_GEMINI_"), (GATEWAY, COORDINATOR)),
    **{f"BOATYARD_{service.upper()}_": (service,) for service in EVERY_SERVICE},
}


class ServiceProcess:
    """A running service. It inherits its lock file, and holds it for as long as it lives."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, cell: CellPlan, service: str, lifeline: int) -> "ServiceProcess":
        """Start a service that ends when the other end of `lifeline` closes.

        Raises LockHeldError while an earlier process of this service, of the same data directory, lives.
        """
        lock = take_over(service_lock(cell.home, service))
        try:
            with _open_log(cell.log_file(service)) as log:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-P",  # otherwise a folder `services` in the working directory would be imported
                    "-m",
                    f"services.{service}",
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**environment_of(service, cell.environment), LIFELINE_VARIABLE: str(lifeline)},
                    pass_fds=(lifeline, lock.descriptor),
                    start_new_session=True,  # Ctrl-C is for the supervisor, which stops the services in order
                )
            lock.write_pid(process.pid)
        finally:
            lock.release()
        return cls(process)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    async def wait(self) -> int:
        """Return the exit code, or minus the signal that ended it."""
        return await self._process.wait()

    async def stop(self) -> None:
        """Stop the service with SIGTERM, which drains it; kill it when it does not end."""
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_DRAIN_S):
                await self._process.wait()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(number)


def environment_of(service: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return a service's part of an environment: its own variables, and those that no service owns, such as PATH."""
    return {name: value for name, value in environment.items() if service in _owners(name)}


def _owners(name: str) -> tuple[str, ...]:
    if name in _OWNERS:
        return _OWNERS[name]
    return next((owners for prefix, owners in _OWNERS_OF_PREFIXES.items() if name.startswith(prefix)), EVERY_SERVICE)


def log_tail(path: Path) -> str:
    """Return the end of a service's log."""
    try:
        return _end_of(path).decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return ""


def _end_of(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
        return file.read()


def bound_log(path: Path, limit_bytes: int = LOG_BYTES) -> None:
    """Truncate a log that has grown beyond the limit, after replacing the older copy by a new one.

    Services append, so their next write goes to the new end. What they write between copy and truncation, some lines
    at most, is lost. Where a copy has no room, the log's end alone is kept.
    """
    if not path.exists() or path.stat().st_size <= limit_bytes:
        return
    copy, kept = path.with_suffix(".log.1"), b""
    copy.unlink(missing_ok=True)  # first, because its room may be the last that there is
    try:
        shutil.copyfile(path, copy)
    except OSError as error:
        if not is_out_of_room(error):
            raise
        copy.unlink(missing_ok=True)
        kept = _end_of(path)
    os.truncate(path, 0)
    if kept:
        with _open_log(path) as log:
            log.write(kept)


def _open_log(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600), "ab")
