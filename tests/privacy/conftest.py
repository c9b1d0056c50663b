"""Fixtures of the proofs."""

from collections.abc import Iterator

import pytest
from proof_kit import fixed_key

from privacy import crashpoints
from privacy.signing import SigningKey


@pytest.fixture
def key() -> SigningKey:
    """A signing key, the same in every run."""
    return fixed_key()


@pytest.fixture(autouse=True)
def _no_armed_crashpoint() -> Iterator[None]:
    yield
    crashpoints.install(None)
