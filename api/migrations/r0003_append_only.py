"""The database itself refuses to change or remove a key event."""

from privacy.store.append_only import append_only

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the triggers."""
    append_only("key_events", "key store")
