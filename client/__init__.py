"""A department's node: its records, its agent, and the translation between Flower and the agent."""

import os

# Read by Flower when it is first imported; without it, importing makes the process call home.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
