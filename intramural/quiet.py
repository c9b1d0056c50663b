"""Keeps the loggers and bars of the training libraries off the terminal.

The command line has set the environment and the warnings already; what is here has to wait until
the libraries are loaded. Errors still come through, and ``INTRAMURAL_DEBUG=1`` leaves all as it is.
"""

import logging
import os


def quiet() -> None:
    """Set up the loggers for a command that trains; loads the libraries that it silences."""
    if os.environ.get("INTRAMURAL_DEBUG"):
        return
    import flwr.supercore.logger  # sets its own level as it is imported
    from transformers.utils import logging as transformers_logging

    for name in (
        flwr.supercore.logger.FLOWER_LOGGER.name,
        "presidio-analyzer",
        "opacus",
        "httpx",
        "tldextract",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)
    transformers_logging.disable_progress_bar()
