"""Keys get a name and a scope; when a key was last used is noted beside the chain."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns, empty for the events that there are, and the table of uses."""
    op.add_column("key_events", sa.Column("name", sa.Text, nullable=False, server_default=""))
    op.add_column("key_events", sa.Column("scope", sa.Text, nullable=False, server_default=""))
    op.create_table(
        "key_uses",
        sa.Column("key_id", sa.Text, primary_key=True),
        sa.Column("at", sa.Text, nullable=False),
    )
