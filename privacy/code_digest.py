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
    return digest_of({name: _folders(name) for name in PACKAGES})


def digest_of(packages: dict[str, list[Path]]) -> str:
    """The digest over some packages' folders; a package that is not installed has none.

    A package may lie in two folders, as where Flower puts a bundle before the installed one: of
    files with the same relative path the first is the one that runs.
    """
    state = hashlib.sha256(b"intramural-code-v1\n")
    for name, folders in sorted(packages.items()):
        files: dict[str, Path] = {}
        for folder in reversed(folders):
            files |= {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.py")}
        for relative, path in sorted(files.items()):
            state.update(f"{sha256_file(path)}  {name}/{relative}\n".encode())
    return state.hexdigest()


def _folders(package: str) -> list[Path]:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return []
    return [Path(location) for location in spec.submodule_search_locations]
