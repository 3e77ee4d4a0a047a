"""Events of a transaction, published to listeners when it is committed, and dropped when it is not.

The events of a commit that fails in the database itself, which is rare, are published all the same.
"""

from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

_FACTS: Final = "boatyard_facts"


def publish_on_commit(connection: AsyncConnection, fact: object) -> None:
    """Publish an event when this transaction is committed. Does nothing without a listener."""
    connection.info.get(_FACTS, []).append(fact)


def on_commit(engine: AsyncEngine, hear: Callable[[object], None]) -> None:
    """Call `hear` with every event of every transaction from now on, in order. It MUST NOT raise."""

    def begun(connection: Connection) -> None:
        connection.info[_FACTS] = []

    def committed(connection: Connection) -> None:
        for fact in connection.info[_FACTS]:
            hear(fact)

    event.listen(engine.sync_engine, "begin", begun)
    event.listen(engine.sync_engine, "commit", committed)
