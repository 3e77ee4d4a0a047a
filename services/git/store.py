"""What the disk does not tell by itself: where mirrors come from, which order a clone was made for, fences."""

from sqlalchemy import Column, MetaData, String, Table, Text, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.fences import fence_table

metadata = MetaData()
fences = fence_table(metadata)
repositories = Table(
    "repositories",
    metadata,
    Column("repository_id", String(63), primary_key=True),
    Column("url", Text, nullable=False),
)
clones = Table(
    "clones",
    metadata,
    Column("clone_id", String(63), primary_key=True),
    Column("order_hash", String(64), nullable=False),
)


class GitStore:
    """The records beside the repositories. Each method is one transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def remember_url(self, repository_id: str, url: str) -> None:
        """Record where a repository is now."""
        new = sqlite.insert(repositories).values(repository_id=repository_id, url=url)
        statement = new.on_conflict_do_update(index_elements=["repository_id"], set_={"url": new.excluded.url})
        async with self._engine.begin() as connection:
            await connection.execute(statement)

    async def url(self, repository_id: str) -> str | None:
        """Return where a repository is, or None."""
        async with self._engine.begin() as connection:
            return await connection.scalar(
                select(repositories.c.url).where(repositories.c.repository_id == repository_id)
            )

    async def claim_clone(self, clone_id: str, order_hash: str) -> bool:
        """Record an order under an id; return False when the id stands for another one."""
        new = sqlite.insert(clones).values(clone_id=clone_id, order_hash=order_hash).on_conflict_do_nothing()
        async with self._engine.begin() as connection:
            await connection.execute(new)
            recorded = await connection.scalar(select(clones.c.order_hash).where(clones.c.clone_id == clone_id))
        return recorded == order_hash
