"""A department's node: its records, its agent, and the translation between Flower and the agent."""

import os
from pkgutil import extend_path

# Flower puts a bundle, which holds only this file and `app.py`, in front of the search path. The
# rest of the package is then found where the department has installed it.
__path__ = extend_path(__path__, __name__)

# Read by Flower when it is first imported; without it, importing makes the process call home.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
