"""The bundle and the node that takes no other: code from a run never reaches the node's user."""

import zipfile
from importlib import import_module
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.supercore.fab import Fab

from client.bundle import BUNDLED, build_bundle, content_of, is_own
from client.supernode import guard

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


def test_flower_still_has_what_is_guarded() -> None:
    """The two names that the guard replaces exist in the pinned version, and are called by name."""
    internal = import_module("flwr.supernode.start_client_internal")
    names = internal.start_client_internal.__code__.co_names
    assert "_pull_and_store_message" in names
    assert "_verify_fab" in internal._pull_and_store_message.__code__.co_names


class Pulled:
    """Stands for Flower's pull: it asks for the bundle and verifies it where there are trusted entities."""

    def __init__(self) -> None:
        self.stored: list[bytes] = []
        self.refused = 0
        self.module = SimpleNamespace(
            _pull_and_store_message=self.pull, _verify_fab=lambda fab, trusted: True
        )

    def pull(self, *, get_fab: Any, trusted_entities: Any, run_id: int) -> int:
        fab = get_fab("hash", run_id)
        verified = not trusted_entities or (
            fab.verifications.get("valid_license", "")
            and self.module._verify_fab(fab, trusted_entities)
        )
        if verified:
            self.stored.append(fab.content)
        else:
            self.refused += 1
        return run_id


@pytest.mark.parametrize("verifications", [{}, {"valid_license": "yes"}])
def test_guarded_node_stores_its_own_bundle_alone(verifications: dict[str, str]) -> None:
    """Whatever the SuperLink claims to have verified, an altered bundle is not stored."""
    own = build_bundle()
    altered = rezipped(dict(content_of(own)) | {"client/app.py": b"import os"})
    flower = Pulled()
    guard(flower.module)
    for content in (own, altered):
        result = flower.module._pull_and_store_message(
            get_fab=lambda digest, run_id, c=content: Fab(digest, c, dict(verifications)),
            trusted_entities=None,
            run_id=7,
        )
        assert result == 7
    assert flower.stored == [own]
    assert flower.refused == 1


def test_other_version_of_flower_does_not_start() -> None:
    """A Flower whose check cannot be replaced runs nothing."""
    with pytest.raises(SystemExit, match=r"install flwr==1\.41\.0"):
        guard(SimpleNamespace())
