"""What is done again and again beside all else: forgetting what is old, each in its module's own way."""

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
    """Forget some of `what` is old, every hour, until cancelled; soon again where `forget` says that there is more.

    A database that is away is asked the next time.
    """
    while True:
        try:
            more = await forget()
        except (ServiceError, SQLAlchemyError) as error:
            log.warning("what is old is kept for now", what=what, error=str(error))
            more = False
        await asyncio.sleep(_PAUSE_SECONDS if more else _HOUR_SECONDS)
