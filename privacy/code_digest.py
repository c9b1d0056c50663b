"""Which code ran: one digest over the installed source files of all our packages."""

import hashlib
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from privacy.files import sha256_file

PACKAGES = ("api", "client", "intramural", "policies", "privacy", "server")


@lru_cache(maxsize=1)
def code_digest() -> str:
    """SHA-256, hexadecimal, over path and content of every ``.py`` file of the installed packages.

    Computed once per process, so it names the code that was there when the process first asked.
    The same files give the same digest wherever they are installed.
    """
    return digest_of({name: _folder(name) for name in PACKAGES})


def digest_of(packages: dict[str, Path | None]) -> str:
    """The digest over some packages' folders; None stands for a package that is not installed."""
    state = hashlib.sha256(b"intramural-code-v1\n")
    for name, folder in sorted(packages.items()):
        if folder is None:
            continue
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.py")}
        for relative, path in sorted(files.items()):
            state.update(f"{sha256_file(path)}  {name}/{relative}\n".encode())
    return state.hexdigest()


def _folder(package: str) -> Path | None:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])
