"""Keeps other libraries' chatter off the terminal; ours goes through `intramural.progress`.

Called by the commands that load models, before anything heavy is imported. Errors still come
through, and ``INTRAMURAL_DEBUG=1`` leaves everything as it is.
"""

import logging
import os
import warnings


def quiet() -> None:
    """Set up logging, warnings and threads for a command that loads models."""
    # Threads that spin long while they wait make a run on a busy machine several times slower;
    # threads that never spin make it a third slower on an idle one.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if os.environ.get("INTRAMURAL_DEBUG"):
        return
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import flwr.supercore.logger  # sets its own level as it is imported

    for name in (
        flwr.supercore.logger.FLOWER_LOGGER.name,
        "presidio-analyzer",
        "opacus",
        "httpx",
        "tldextract",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
    warnings.filterwarnings("ignore", message="Full backward hook is firing.*")
    warnings.filterwarnings("ignore", message="The PEFT config's `base_model_name_or_path`.*")
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
