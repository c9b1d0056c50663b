"""The ledger's one table, which refuses changes and deletions by itself."""

import sqlalchemy as sa
from alembic import op

from privacy.store.append_only import append_only

revision = "ledger_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "entries",
        sa.Column("index", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("department", sa.String(100), nullable=False, index=True),
        sa.Column("block", sa.String(40), nullable=False),
        sa.Column("run_id", sa.String(100), nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("event", sa.Text, nullable=True),
        sa.Column("epsilon", sa.Double, nullable=True),
        sa.Column("delta", sa.String(40), nullable=True),
        sa.Column("budget", sa.String(40), nullable=True),
        sa.Column("policy_digest", sa.String(64), nullable=True),
        sa.Column("reservation", sa.Integer, nullable=True, unique=True),
        sa.Column("receipt_digest", sa.String(64), nullable=True),
        sa.Column("reason", sa.String(40), nullable=True),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        sa.Column("signature", sa.LargeBinary(64), nullable=False),
    )
    append_only("entries", "ledger")


def downgrade() -> None:
    raise NotImplementedError("a ledger is never taken back to an older form")
