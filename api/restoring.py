"""Opening a sealed map and putting its values back."""

from collections.abc import Sequence
from typing import Any

from privacy.pii.restoring import Originals


def restore(content: dict[str, Any], texts: Sequence[str], *, json: bool) -> list[str]:
    """Texts with the values of a sealed map in the place of their stand-ins."""
    way_back = Originals(**content, json=json)
    return [way_back.restore(text) for text in texts]
