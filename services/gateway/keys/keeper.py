"""Keeps a cell up with the keys of its database, and seals what is not sealed with the current one."""

import asyncio
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from services.common.errors import Unavailable
from services.gateway.keys.store import KeyStore

_EVERY_SECONDS: Final = 2.0
_LOOKS_A_ROUND: Final = 1800
"""After so many looks the cell looks again for values that are not sealed: a version before may have written some."""

log = structlog.get_logger()


async def keep_keys(store: KeyStore, cell_id: str) -> None:
    """Keep up until cancelled. Raises StartError when this cell has slept through a rotation."""
    looks, sealed_with = 0, ""
    while True:
        try:
            if not await store.keep_up(cell_id):
                sealed_with = ""
            elif sealed_with != store.current_key_id and await store.seal_all():
                sealed_with = store.current_key_id
        except (Unavailable, SQLAlchemyError) as error:  # the database is away
            log.info("the keys are looked at later", error=str(error))
        looks += 1
        if looks % _LOOKS_A_ROUND == 0:
            sealed_with = ""
        await asyncio.sleep(_EVERY_SECONDS)
