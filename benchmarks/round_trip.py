"""Redact generated conversations, let a model echo and reword them, restore, and compare.

    python -m benchmarks.round_trip [--conversations 10000] [--seed 0]

Conversations come from the strategies of the tests: several turns, English and Chinese, tool calls,
overlapping findings, shared surnames and first names, placeholders that the caller typed. Prints how
many came back and how long one takes; ends with 1 at the first that does not come back, shown in its
smallest form. Every value in them is invented.
"""

import argparse
import sys
import time
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from policies.model import Action
from tests.privacy.pii.conversations import CONVERSATIONS, KEYS, REWORDINGS, Rewording, round_trip

# Mostly the default, and the others often enough to matter.
_ACTIONS: tuple[Action, ...] = ("replace", "replace", "replace", "pseudonym", "hash", "encrypt")


def main() -> int:
    """Run it; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--conversations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    done = messages_done = 0
    cpu = 0.0

    @seed(options.seed)
    @settings(
        max_examples=options.conversations,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(CONVERSATIONS, st.sampled_from(REWORDINGS), st.sampled_from(_ACTIONS), KEYS)
    def check(
        messages: list[dict[str, Any]], rewording: Rewording, action: Action, key: bytes
    ) -> None:
        nonlocal done, messages_done, cpu
        begun = time.process_time()
        round_trip(messages, action, rewording, key)
        cpu += time.process_time() - begun
        done += 1
        messages_done += len(messages)

    check()
    print(f"{done:,} conversations of {messages_done:,} messages came back; none left a value or")
    print(f"swapped two. {1000 * cpu / max(done, 1):.1f} CPU-ms each, checks included.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
