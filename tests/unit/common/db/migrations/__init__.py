"""A small schema for the database tests."""

from sqlalchemy import Column, Integer, MetaData, String, Table

from services.common.db.fences import fence_table

metadata = MetaData()
things = Table("things", metadata, Column("id", String(63), primary_key=True), Column("size", Integer, nullable=False))
fences = fence_table(metadata)
