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
    looks, is_to_seal = 0, True
    while True:
        try:
            is_agreed = await store.keep_up(cell_id)
            if is_agreed and is_to_seal:
                is_to_seal = not await store.seal_all()
            elif not is_agreed:
                is_to_seal = True
        except (Unavailable, SQLAlchemyError) as error:  # the database is away
            log.info("the keys are looked at later", error=str(error))
        looks += 1
        is_to_seal = is_to_seal or looks % _LOOKS_A_ROUND == 0
        await asyncio.sleep(_EVERY_SECONDS)
