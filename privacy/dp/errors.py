"""Errors of private training.

::

    PrivacyError
    └── DpError
        ├── InvalidPlan       a public parameter lies outside its bounds
        ├── InvalidExample    an encoded record cannot be trained on
        ├── AdapterMismatch   tensors do not belong to this model and adapter configuration
        └── TrainingFailed    what came out is not what a sound step gives
"""

from privacy.errors import PrivacyError


class DpError(PrivacyError):
    """Base of the errors of private training."""


class InvalidPlan(DpError, ValueError):
    """A public parameter lies outside its bounds."""


class InvalidExample(DpError, ValueError):
    """An encoded record cannot be trained on; the message never holds its content."""


class AdapterMismatch(DpError, ValueError):
    """Tensors do not belong to this model and adapter configuration."""


class TrainingFailed(DpError):
    """What came out of training is not what a sound step gives."""
