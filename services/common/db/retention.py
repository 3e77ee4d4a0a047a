"""The loop that removes what is old, in the background; each module removes its own."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from services.common.errors import ServiceError

_HOUR_SECONDS: Final = 3600.0
_PAUSE_SECONDS: Final = 0.2

log = structlog.get_logger()


async def every_hour(what: str, forget: Callable[[], Awaitable[bool]]) -> None:
    """Call `forget` every hour until cancelled, and soon again while it returns True: there is more to remove.

    When the database is away, the next call tries again. `what` names the things for the log.
    """
    while True:
        try:
            more = await forget()
        except (ServiceError, SQLAlchemyError) as error:
            log.warning("what is old is kept for now", what=what, error=str(error))
            more = False
        await asyncio.sleep(_PAUSE_SECONDS if more else _HOUR_SECONDS)
