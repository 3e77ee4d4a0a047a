"""Who answers what agents ask of a model, with what it lets requests in by; and who does so on one cell alone."""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0025"


def upgrade() -> None:
    op.create_table(
        "providers",
        sa.Column("provider_id", sa.String(63), primary_key=True),
        sa.Column("project_id", sa.String(63), sa.ForeignKey("projects.project_id"), nullable=True),
        sa.Column("wire", sa.String(16), nullable=False),
        sa.Column("base_url", sa.Text, nullable=False),
        sa.Column("keys", sa.Text, nullable=False),
        sa.Column("aliases", sa.JSON, nullable=False),
        sa.Column("models", sa.JSON, nullable=False),
        sa.Column("project_header", sa.Text, nullable=False),
        sa.Column("ca", sa.Text, nullable=False),
        sa.Column("order", sa.Integer, nullable=False),
        sa.Column("disabled", sa.Boolean, nullable=False),
        sa.Column("for_coordinators", sa.Boolean, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("delete_time", sa.BigInteger, nullable=True),
    )
    op.add_column("cells", sa.Column("own_providers", sa.Text, nullable=True))
