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


async def every_hour(what: str, remove_expired: Callable[[], Awaitable[bool]]) -> None:
    """Call `remove_expired` every hour until cancelled, and soon again while it returns True: there is more.

    When the database is unavailable, the next call tries again. `what` names the records for the log.
    """
    while True:
        try:
            more = await remove_expired()
        except (ServiceError, SQLAlchemyError) as error:
            log.warning("cannot remove what has expired; trying again later", what=what, error=str(error))
            more = False
        await asyncio.sleep(_PAUSE_SECONDS if more else _HOUR_SECONDS)
