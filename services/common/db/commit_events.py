"""What a transaction has brought about, told to whoever counts it when it is committed; and never, if it is not.

A commit that fails in the database itself, which is rare, has been told all the same.
"""

from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

_FACTS: Final = "boatyard_facts"


def publish_on_commit(connection: AsyncConnection, fact: object) -> None:
    """Have something told at the commit of the transaction in which it is done. Without a listener it does nothing."""
    connection.info.get(_FACTS, []).append(fact)


def on_commit(engine: AsyncEngine, hear: Callable[[object], None]) -> None:
    """Have `hear` called with every fact of every transaction from now on, in their order. It MUST NOT raise."""

    def begun(connection: Connection) -> None:
        connection.info[_FACTS] = []

    def committed(connection: Connection) -> None:
        for fact in connection.info[_FACTS]:
            hear(fact)

    event.listen(engine.sync_engine, "begin", begun)
    event.listen(engine.sync_engine, "commit", committed)
