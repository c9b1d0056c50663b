"""The service's configuration: file and environment, validated at once, no value repeated."""

import re
import tomllib
from pathlib import Path

import pytest

from api.engines.settings import LocalSettings, UpstreamSettings
from api.settings import ServiceSettings, SettingsInvalid, TlsSettings, load_settings


def test_without_file_and_environment_there_are_defaults() -> None:
    """Nothing has to be configured."""
    assert load_settings(None, {"PATH": "x"}) == ServiceSettings()


def test_the_environment_lies_over_the_file(tmp_path: Path) -> None:
    """Key by key, with two underscores into tables; texts need no quotes."""
    file = tmp_path / "service.toml"
    file.write_text('alias = "house"\nmax_body_bytes = 2048\n[tls]\ncertificate = "a.pem"\n')
    settings = load_settings(
        file,
        {
            "INTRAMURAL_SERVICE_MAX_BODY_BYTES": "4096",
            "INTRAMURAL_SERVICE_TLS__KEY": "/etc/key.pem",
            "INTRAMURAL_SERVICE_TRUSTED_PROXIES": '["10.0.0.0/8"]',
            "INTRAMURAL_SERVICE_REDIS_URL": "redis://:word@host/0",
            "INTRAMURAL_SERVICE_SERVE_BASE_MODEL": "true",
        },
    )
    assert (settings.alias, settings.max_body_bytes) == ("house", 4096)
    assert (settings.tls.certificate, settings.tls.key) == (Path("a.pem"), Path("/etc/key.pem"))
    assert settings.trusted_proxies == ("10.0.0.0/8",)
    assert settings.serve_base_model is True
    assert "word" not in repr(settings)


def test_every_fault_at_once_and_no_value(tmp_path: Path) -> None:
    """Each fault is named by its key, or by the variable that it came from."""
    file = tmp_path / "service.toml"
    file.write_text('max_body_bytes = "word"\nunknown = 1\nbody_seconds = 0\n')
    with pytest.raises(SettingsInvalid) as caught:
        load_settings(
            file,
            {
                "INTRAMURAL_SERVICE_REDIS_URL": "http://:word@host",
                "INTRAMURAL_SERVICE_TLS__KEY": "only-the-key.pem",
                "INTRAMURAL_SERVICE_ALIAS__INNER": "1",
                "INTRAMURAL_SERVICE_TRUSTED_PROXIES": '["10.0.0.1/8"]',
            },
        )
    keys = {fault.partition(":")[0] for fault in caught.value.faults}
    assert keys == {
        "max_body_bytes",
        "unknown",
        "body_seconds",
        "INTRAMURAL_SERVICE_REDIS_URL",
        "INTRAMURAL_SERVICE_ALIAS__INNER",
        "INTRAMURAL_SERVICE_TRUSTED_PROXIES",
        "INTRAMURAL_SERVICE_TLS__KEY",
    }
    assert "word" not in str(caught.value)


@pytest.mark.parametrize("content", [b"a = ", b"\xff", b"x = 1\nx = 2"])
def test_a_file_that_is_no_toml(tmp_path: Path, content: bytes) -> None:
    """Syntax is a fault of the file; faults of the environment are still told."""
    file = tmp_path / "service.toml"
    file.write_bytes(content)
    with pytest.raises(SettingsInvalid) as caught:
        load_settings(file, {"INTRAMURAL_SERVICE_BODY_SECONDS": "0"})
    assert len(caught.value.faults) == 2


def test_a_missing_file_is_a_fault(tmp_path: Path) -> None:
    """A file that is named must be there."""
    with pytest.raises(SettingsInvalid, match="No such file"):
        load_settings(tmp_path / "none.toml", {})


def test_every_setting_is_documented() -> None:
    """The page about access has every key with its default."""
    page = (Path(__file__).parents[2] / "docs" / "access.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| (?:`([^`]*)`|unset) \|", page, re.MULTILINE))
    stated = {
        key: tomllib.loads(f"x = {value}")["x"] if value else None for key, value in rows.items()
    }
    defaults = ServiceSettings().model_dump(exclude={"tls", "engine"})
    assert stated == {
        key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()
    }
    for name in TlsSettings.model_fields:
        assert f"`tls.{name}`" in page


def test_every_engine_setting_is_documented() -> None:
    """The page about operation shows every key of both engines, in an example or a table."""
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    for name in (*LocalSettings.model_fields, *UpstreamSettings.model_fields):
        shown = rf"^{name} = |^\| `{name}` \||\[engine\.upstream\.{name}\]"
        assert re.search(shown, page, re.MULTILINE), name
