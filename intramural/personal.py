"""Adapters of single departments in a workspace: put in by hand, on top of the release when served."""

from dataclasses import dataclass, replace
from pathlib import Path

from intramural.workspace import Workspace
from privacy.errors import PersonalInvalid
from privacy.exchange import Array
from privacy.files import write_atomic
from privacy.personal import LARGEST_FILE, SUFFIX, opened
from privacy.release import VerifiedRelease


@dataclass(frozen=True)
class Placed:
    """Where the adapter of a department for a release was put."""

    department: str
    release: str
    path: Path

    def to_json(self) -> dict[str, str]:
        """The facts as a JSON object."""
        return {"department": self.department, "release": self.release, "file": str(self.path)}


def put_in(workspace: Workspace, release: VerifiedRelease, data: bytes) -> Placed:
    """Keep a department's own adapter for a release of the workspace, instead of one before.

    Raises:
        PersonalInvalid: see :func:`privacy.personal.opened`.
    """
    department, _ = opened(data, release)
    folder = workspace.personal(release.id)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{department}{SUFFIX}"
    write_atomic(path, data, mode=0o600)
    return Placed(department, release.id, path)


def with_personal(workspace: Workspace, release: VerifiedRelease) -> VerifiedRelease:
    """The release with the adapters that departments gave to this workspace for it.

    Raises:
        PersonalInvalid: one cannot be used; none is left out silently.
    """
    folder = workspace.personal(release.id)
    files = sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []
    return replace(release, personal={file.stem: _kept(file, release) for file in files})


def _kept(file: Path, release: VerifiedRelease) -> dict[str, Array]:
    way_out = "get it anew from the department, or take it away"
    try:
        department, tensors = opened(read_file(file), release)
    except PersonalInvalid as error:
        raise PersonalInvalid(f"{file}: {error}; {way_out}") from None
    if department != file.stem:
        raise PersonalInvalid(
            f"{file}: this is the adapter of department {department!r}; {way_out}"
        )
    return tensors


def read_file(file: Path) -> bytes:
    """The bytes of a personal adapter.

    Raises:
        PersonalInvalid: it cannot be read, or is larger than any.
    """
    try:
        with file.open("rb") as stream:
            data = stream.read(LARGEST_FILE + 1)
    except OSError as error:
        raise PersonalInvalid(f"{file} cannot be read: {error.strerror}") from None
    if len(data) > LARGEST_FILE:
        raise PersonalInvalid(f"{file} is larger than {LARGEST_FILE} bytes")
    return data
