"""The table of outages: providers of models that did not answer, and when they are asked again."""

from sqlalchemy import BigInteger, Column, Integer, String, Table, Text

from services.gateway.schema.metadata import metadata

model_outages = Table(
    "model_outages",
    metadata,
    Column("project_id", String(63), primary_key=True),
    Column("provider", Text, primary_key=True),
    Column("failures", Integer, nullable=False),  # in a row: how often it was asked again in vain, and the first time
    Column("next_time", BigInteger, nullable=False),  # in microseconds, by the database's clock
)
