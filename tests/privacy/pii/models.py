"""The full detector over the fetched model assets; tests that use it are marked e2e."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from privacy.pii.detector import Detector, PiiModels, open_detector


def pii_models() -> PiiModels:
    """The models' folders; skips where the assets were not fetched."""
    from intramural.assets import AssetMissing, asset_path

    try:
        folders: list[Path] = [
            asset_path(name) for name in ("spacy-en-md", "rampart-en-pii", "lac-zh")
        ]
    except AssetMissing as error:
        pytest.skip(str(error))
    return PiiModels(*folders)


@cache
def _opened(options: tuple[tuple[str, Any], ...]) -> Detector:
    return open_detector(pii_models(), **dict(options))


def full_detector(**options: Any) -> Detector:
    """The full detector; one of each kind is kept, since models take seconds to load."""
    frozen = {k: tuple(v) if isinstance(v, list | set) else v for k, v in options.items()}
    return _opened(tuple(sorted(frozen.items())))
