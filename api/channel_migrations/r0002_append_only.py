"""The database itself refuses to change or remove a promotion."""

from privacy.store.append_only import append_only

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the triggers."""
    append_only("channel_events", "store of promotions")
