"""What a repository's own server needs: certificates of its CA, and options for pushes."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.add_column("repositories", sa.Column("ca", sa.Text, nullable=False, server_default=""))
    op.add_column("repositories", sa.Column("push_options", sa.JSON, nullable=False, server_default="[]"))
