"""Watches the checkpoints that wait for an answer."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from services.gateway.checkpoints.store import CheckpointStore
from services.gateway.ledger.looks import looks
from services.gateway.ledger.notifier import ALL, JobNotifier
from services.gateway.values.checkpoints import Checkpoint, CheckpointFilter

_AT_ONCE = 100


async def watch_open(
    store: CheckpointStore, notifier: JobNotifier, filters: CheckpointFilter
) -> AsyncGenerator[Checkpoint | None, None]:
    """Yield the checkpoints that match, None, then each new one, and each again that matches no longer.

    None is a heartbeat. The filter names a state.
    """
    known: dict[str, None] = {}
    unsent: list[str] = []
    is_first = True

    async def look() -> list[Checkpoint | None] | None:
        nonlocal known, unsent, is_first
        if not unsent:
            found = dict.fromkeys(await store.ids(filters))
            unsent = [*(one for one in known if one not in found), *(one for one in found if one not in known)]
            known = found
        views: list[Checkpoint | None] = [*await store.several(unsent[:_AT_ONCE])] if unsent else []
        unsent = unsent[_AT_ONCE:]
        if is_first and not unsent:
            is_first = False
            views.append(None)
        return views or None

    async with aclosing(looks(notifier, ALL, look, lambda: bool(unsent))) as batches:
        async for batch in batches:
            for view in batch or (None,):
                yield view
