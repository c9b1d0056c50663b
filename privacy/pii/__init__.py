"""Finding and replacing personal data.

:class:`Redactor` is the way in for programs; everything else is imported from its module. Nothing
is loaded before it is named, neither models nor Presidio.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from privacy.pii.redactor import Finding as Finding
    from privacy.pii.redactor import Redactor as Redactor
    from privacy.pii.redactor import Result as Result

__all__ = ["Finding", "Redactor", "Result"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from privacy.pii import redactor

        return getattr(redactor, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
