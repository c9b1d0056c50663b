"""The bundle and the node that takes no other: code from a run never reaches the node's user."""

import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from client.bundle import BUNDLED, build_bundle, content_of, is_own

ROOT = Path(__file__).parents[2]


def rezipped(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def test_bundle_holds_the_translation_modules_and_nothing_else() -> None:
    """Four installed modules, to the byte, and Flower's own two descriptions of them."""
    content = content_of(build_bundle())
    assert set(content) == {*BUNDLED, "pyproject.toml", ".info/CONTENT"}
    for name in BUNDLED:
        assert content[name] == (ROOT / name).read_bytes()


def test_bundle_built_twice_is_the_same() -> None:
    """Hub and node build the same bytes from the same version."""
    assert build_bundle() == build_bundle()


def test_compression_does_not_count() -> None:
    """Another zlib at the hub makes other bytes of the same content."""
    own = build_bundle()
    other = rezipped(dict(content_of(own)))
    assert other != own
    assert is_own(other)


@pytest.mark.parametrize("name", [*BUNDLED, "pyproject.toml"])
def test_altered_file_is_refused(name: str) -> None:
    """One added line in any file makes it another bundle."""
    files = dict(content_of(build_bundle()))
    files[name] += b"\nimport os\n"
    assert not is_own(rezipped(files))


def test_added_and_removed_files_are_refused() -> None:
    """Neither a further module nor a missing one passes."""
    files = dict(content_of(build_bundle()))
    assert not is_own(rezipped(files | {"client/agent.py": b""}))
    assert not is_own(rezipped(files | {"torch.py": b""}))
    del files["server/app.py"]
    assert not is_own(rezipped(files))


def test_what_is_no_bundle_is_refused() -> None:
    """Other bytes, and an archive that names a file twice, are no bundle."""
    assert not is_own(b"")
    assert not is_own(b"PK\x03\x04 and nothing")
    own = build_bundle()
    buffer = BytesIO(own)
    with zipfile.ZipFile(buffer, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("client/app.py", b"import os")
    assert not is_own(buffer.getvalue())
