"""The hub: it plans rounds, collects noised updates, aggregates, evaluates and publishes.

It never sees a record or an un-noised update, and cannot overrule a department's budget.
"""

import os
from pkgutil import extend_path

# Flower puts a bundle, which holds only this file and `app.py`, in front of the search path. The
# rest of the package is then found where the hub has installed it.
__path__ = extend_path(__path__, __name__)

# Read by Flower when it is first imported; without it, importing makes the process call home.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
