"""The bundle that Flower ships with a run: four translation modules, built from what is installed.

Hub and node build it in the same way, so that a node can tell whether a bundle holds anything else.
"""

import importlib
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Final

from flwr.cli.build import build_fab_from_files

BUNDLED: Final = ("client/__init__.py", "client/app.py", "server/__init__.py", "server/app.py")
"""An allow-list of code; data, keys and policies never travel with a run."""

RUN_SETTING: Final = "run-id"
"""The one thing that a run may set: which of the hub's signed manifests it is about."""

_DESCRIPTION = f"""[project]
name = "intramural"
version = "1.0.0"
description = "Translation between Flower and the installed hub and node agent"
license = "Apache-2.0"
dependencies = ["flwr==1.41.0"]

[tool.flwr.app]
publisher = "intramural"
fab-include = ["client/app.py", "client/__init__.py", "server/app.py", "server/__init__.py"]

[tool.flwr.app.config]
{RUN_SETTING} = ""

[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "client.app:app"
"""


def build_bundle() -> bytes:
    """The bundle of the modules that are installed here.

    Raises:
        ModuleNotFoundError: one is not installed.
    """
    files: dict[str, bytes | Path] = {"pyproject.toml": _DESCRIPTION.encode()}
    for name in BUNDLED:
        package, file = name.split("/")
        origin = importlib.import_module(package).__file__
        if origin is None:
            raise ModuleNotFoundError(f"the package {package!r} has no file", name=package)
        files[name] = (Path(origin).parent / file).read_bytes()
    data, _ = build_fab_from_files(files)
    return data


def content_of(bundle: bytes) -> Mapping[str, bytes]:
    """Names and contents of a bundle's files; compression does not count.

    Raises:
        ValueError: it is no bundle, or names a file twice.
    """
    try:
        with zipfile.ZipFile(BytesIO(bundle)) as archive:
            names = archive.namelist()
            if len(set(names)) != len(names):
                raise ValueError("the bundle names a file twice")
            return {name: archive.read(name) for name in names}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"this is no bundle ({type(error).__name__})") from None


def is_own(bundle: bytes) -> bool:
    """Whether a bundle holds what this node would bundle itself, to the byte, and nothing else."""
    try:
        return content_of(bundle) == content_of(build_bundle())
    except ValueError:
        return False
