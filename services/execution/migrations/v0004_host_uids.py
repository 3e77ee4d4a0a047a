"""The uid of the host that an execution's processes have, where it is not the service's own."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("executions", sa.Column("host_uid", sa.BigInteger, nullable=True))
