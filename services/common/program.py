"""What every service's `main` does around its own work: logs, one event loop, and start errors for people."""

import asyncio
import gc
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, NoReturn

from services.common import logs
from services.common.errors import ServiceError, StartError, Unavailable
from services.common.room import is_out_of_room

# Python's own but for the last: a whole collection stops everything for up to 0.2 s while a thousand calls are open,
# and finds next to nothing, so that it is made a tenth as often.
_COLLECTED_EVERY = (700, 10, 100)

EXIT_AWAY = 69  # EX_UNAVAILABLE of sysexits.h: something that it needs is away, such as its database
EXIT_TRY_AGAIN = 75  # EX_TEMPFAIL: the disk is full; starting it again helps when there is room
EXIT_CANNOT_START = 78  # EX_CONFIG: starting it again does not help before something is fixed
EXIT_INTERRUPTED = 130


def run(service: str, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a service to its end; a StartError is one message on standard error and exit code 78.

    When a disk without room ends it, the exit code is 75, and 69 when its database is away.
    BOATYARD_LOG_LEVEL (INFO) says how much is logged; what the log has no room for is dropped and counted.
    """
    level = os.environ.get("BOATYARD_LOG_LEVEL", "INFO").upper()
    logs.use_lossy_stderr(service)
    logs.configure(service, level)
    gc.set_threshold(*_COLLECTED_EVERY)
    try:
        asyncio.run(main())
    except StartError as error:
        _end(service, error, EXIT_TRY_AGAIN if is_out_of_room(error.__cause__) else EXIT_CANNOT_START)
    except (ServiceError, OSError) as error:
        if is_out_of_room(error):
            _end(service, error, EXIT_TRY_AGAIN)
        if isinstance(error, Unavailable):
            _end(service, error, EXIT_AWAY)
        raise
    except KeyboardInterrupt:  # before `serve` handled the signal: nothing has begun
        sys.exit(EXIT_INTERRUPTED)


def _end(service: str, error: Exception, code: int) -> NoReturn:
    sys.stderr.write(f"boatyard {service}: {error}\n")
    sys.exit(code)


@asynccontextmanager
async def background_tasks(works: Mapping[str, Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run tasks, by name, in the background of what is inside, and cancel them at its end.

    When one of them fails, so does what is inside: a service that has lost a loop would look healthy and do nothing.
    A single error is raised as it is and not in a group, so that a StartError stays one.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work, name=name) for name, work in works.items()]
            yield
            for task in tasks:
                task.cancel()
    except ExceptionGroup as failures:
        if len(failures.exceptions) > 1:
            raise
        raise failures.exceptions[0] from failures.exceptions[0].__cause__
