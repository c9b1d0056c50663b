"""Fixtures of the service."""

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from privacy.release import VerifiedRelease
from tests.api import service_kit
from tests.api.service_kit import Factory, Service


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> VerifiedRelease:
    """A release that verifies; its adapter fits no model."""
    return service_kit.release(tmp_path_factory.mktemp("published"))


@pytest.fixture
def make_service(tmp_path: Path, published: VerifiedRelease) -> Iterator[Factory]:
    """Builds services; closed at the end of the test."""
    numbers = itertools.count()
    with ExitStack() as stack:

        def make(**options: Any) -> Service:
            folder = tmp_path / f"service-{next(numbers)}"
            folder.mkdir()
            service = service_kit.build(folder, options.pop("published", published), **options)
            stack.callback(service.keys.close)
            stack.callback(service.audit.close)
            return service

        yield make


@pytest.fixture
def service(make_service: Factory) -> Service:
    """The usual service."""
    return make_service()
