"""What the empirical audit refuses.

::

    PrivacyError
    └── EmpiricalError
        ├── BoundInvalid        numbers that no audit can have produced
        └── CanariesUnusable    the canaries or scores of a run are missing, damaged or exposed
"""

from privacy.errors import PrivacyError


class EmpiricalError(PrivacyError):
    """Root of the tree."""


class BoundInvalid(EmpiricalError):
    """Numbers that no audit can have produced."""


class CanariesUnusable(EmpiricalError):
    """The canaries or scores of a run are missing, damaged or readable by others."""
