"""What Flower's processes find in their environment, at the hub and at a node."""

import os
import re
import sys
from pathlib import Path
from typing import Final

CHATTER: Final = re.compile(
    r"EXPERIMENTAL|Servicer\.|\[uvicorn\.access\]|Started server process|Waiting for application"
    r"|Application startup|lifespan|Lifespan|^INFO :$"
)
"""Lines of Flower's processes that tell an operator nothing."""

_LOOPBACK = "127.0.0.1,localhost,::1"


def flower_environment(flwr_home: Path) -> dict[str, str]:
    """Telemetry, update check and run-time installation off; our own commands first on the path."""
    inherited = [os.environ.get(name, "") for name in ("NO_PROXY", "no_proxy")]
    no_proxy = ",".join(filter(None, [_LOOPBACK, *inherited]))
    return {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_HOME": str(flwr_home),
        # Flower starts its commands by name, which must be those beside this interpreter.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
    }


def beside(command: str) -> str:
    """The path of a command that is installed with this interpreter."""
    return str(Path(sys.executable).parent / command)
