"""Which jobs a coordinator takes, so that it is no place for others."""

import sqlalchemy as sa
from alembic import op

revision = "0038"
down_revision = "0035"


def upgrade() -> None:
    op.add_column("cells", sa.Column("takes", sa.Text, nullable=False, server_default=""))
