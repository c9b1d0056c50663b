"""Promotions are kept, shared and chained; in either database."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from api.channels import PromotionRefused
from api.channels_table import ChannelStore
from privacy.errors import TamperedStore
from privacy.signing import SigningKey
from tests.postgres_kit import Places

ONE, TWO, THREE = (f"r-{digit * 20}" for digit in "123")


@pytest.fixture
def key() -> SigningKey:
    """Signs the store's heads."""
    return SigningKey.generate()


@pytest.fixture
def store(places: Places, key: SigningKey) -> Iterator[ChannelStore]:
    """An empty store."""
    with closing(ChannelStore(places("channels"), key)) as opened:
        yield opened


def test_a_promotion_is_seen_by_every_other_at_once(
    store: ChannelStore, places: Places, key: SigningKey
) -> None:
    """Promote here, read there; roll back there, read here. The version grows with each."""
    with closing(ChannelStore(places("channels"), key)) as other:
        assert other.version() == 0
        store.promote("crm", ONE)
        store.promote("crm", TWO)
        assert other.promote("crm", THREE, "canary", 10).canary == THREE
        assert (other.version(), store.channels()["crm"].percent) == (3, 10)
        other.rollback("crm")
        assert store.channels()["crm"].canary == ""
        other.rollback("crm")
        assert store.channels()["crm"].stable == ONE
        with pytest.raises(PromotionRefused, match="first release"):
            store.rollback("crm")
        assert store.version() == other.version() == 5


def test_promotions_survive_and_verify(
    store: ChannelStore, places: Places, key: SigningKey
) -> None:
    """Closed and opened again, all is there; another key opens nothing."""
    store.promote("crm", ONE)
    store.close()
    with closing(ChannelStore(places("channels"), key)) as again:
        assert again.channels()["crm"].stable == ONE
    with pytest.raises(TamperedStore):
        ChannelStore(places("channels"), SigningKey.generate())


@pytest.mark.parametrize(
    "change",
    [
        f"UPDATE channel_events SET release = '{THREE}' WHERE seq = 2",
        "DELETE FROM channel_events WHERE seq = 2",
        "DELETE FROM channel_events WHERE seq = 1",
    ],
)
def test_a_changed_promotion_is_found(
    store: ChannelStore, places: Places, key: SigningKey, change: str
) -> None:
    """Refused by the database; once its owner has forced it, the store opens no more."""
    store.promote("crm", ONE)
    store.promote("crm", TWO)
    store.close()
    with pytest.raises(Exception, match="the store of promotions is append-only"):
        places.sql(places("channels"), change)
    places.tamper(places("channels"), "channel_events", change)
    with pytest.raises(TamperedStore):
        ChannelStore(places("channels"), key)
