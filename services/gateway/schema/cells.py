"""The table of cells: one row for each machine that takes jobs."""

from sqlalchemy import Boolean, Column, Integer, String, Table, Text

from services.common.db.columns import Moment
from services.gateway.schema.metadata import metadata

cells = Table(
    "cells",
    metadata,
    Column("cell_id", String(63), primary_key=True),
    Column("kind", String(31), nullable=False, default="GATEWAY"),  # or COORDINATOR
    Column("host", Text, nullable=False),
    Column("version", String(63), nullable=False, default=""),
    Column("capacity", Integer, nullable=False, default=0),  # jobs at once
    Column("paused", Boolean, nullable=False, default=False),  # takes no jobs until somebody resumes it
    Column("until_start", Boolean, nullable=False, default=False),  # and then only until it is started again
    # Where other gateways reach this one, and the token that they show: new at every start. Empty: not reachable.
    Column("address", Text, nullable=False, default=""),
    Column("peer_token", Text, nullable=False, default=""),
    # What it lets jobs choose, separated by commas. NULL: its node has not said it yet.
    Column("allowed_tiers", Text, nullable=True),
    Column("allowed_networks", Text, nullable=True),
    Column("limits", Text, nullable=False, server_default=""),  # the most that jobs may ask for
    # Who answers there what agents ask of a model, by its own environment, as JSON. NULL: its node has not said it yet.
    Column("own_providers", Text, nullable=True),
    # The agents that it knows by name, as JSON: why one cannot be started, or "". NULL: its node has not said it yet.
    Column("agents", Text, nullable=True),
    # Which jobs it takes, as JSON; empty: any.
    Column("takes", Text, nullable=False, server_default=""),
    # What keeps it from taking new jobs, as JSON; empty: nothing is known of any trouble.
    Column("troubles", Text, nullable=False, server_default=""),
    # How long its leases last without a heartbeat, in ms; 0: a version before had not said it.
    Column("lease_ms", Integer, nullable=False, server_default="0"),
    # The keys that it has for this database, separated by spaces, and the one that it seals with: see `gateway.keys`.
    Column("key_ids", Text, nullable=False, server_default=""),
    Column("sealing_key_id", String(63), nullable=False, server_default=""),
    Column("start_time", Moment, nullable=False),
    Column("beat_time", Moment, nullable=False),
)
