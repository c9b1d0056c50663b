"""Leaves and checkpoints, which refuse changes and deletions by themselves."""

import sqlalchemy as sa
from alembic import op

from privacy.store.append_only import append_only

revision = "audit_0001"
down_revision = None
branch_labels = None
depends_on = None
_POSITION = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "leaves",
        sa.Column("index", _POSITION, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(16), nullable=False, index=True),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "checkpoints",
        sa.Column("size", _POSITION, primary_key=True, autoincrement=False),
        sa.Column("note", sa.Text, nullable=False),
    )
    for table in ("leaves", "checkpoints"):
        append_only(table, "audit log")


def downgrade() -> None:
    raise NotImplementedError("an audit log is never taken back to an older form")
