"""Run manifests: content-addressed, signed, and exactly what a round may ask."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from federation_kit import make_policy
from manifest_kit import ACCOUNT, draw, signed

from privacy.manifest import ManifestInvalid, RunManifest, SignedManifest
from privacy.signing import SigningKey

POLICY = make_policy()
KEY = SigningKey.generate()
TRUSTED = {ACCOUNT: KEY.verify_key}


def test_manifest_survives_its_text_and_verifies() -> None:
    """What was signed is what is read back, under the same run id."""
    made = signed(POLICY, KEY)
    read = SignedManifest.from_json(made.to_json())
    assert read == made
    assert read.verify(TRUSTED).run_id == made.manifest.run_id


def test_the_run_id_is_the_content() -> None:
    """Whatever changes, a term, the cohort or the nonce, makes another run."""
    manifest = draw(POLICY)
    value = manifest.to_json()
    changes = [
        {"terms": value["terms"] | {"clipping_norm": 0.4}},
        {"departments": value["departments"][:2]},
        {"nonce": "0" * 32},
        {"round_seconds": 61.0},
    ]
    others = [RunManifest.from_json(value | change).run_id for change in changes]
    assert len({manifest.run_id, *others}) == 1 + len(changes)
    assert draw(POLICY).run_id != manifest.run_id


@pytest.mark.parametrize("name", ["clipping_norm", "noise_multiplier", "rounds"])
def test_changed_term_is_found(name: str) -> None:
    """One changed figure under the old signature verifies nowhere."""
    value = json.loads(signed(POLICY, KEY).to_json())
    value["manifest"]["terms"][name] *= 2
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    with pytest.raises(ManifestInvalid) as caught:
        SignedManifest.from_json(text).verify(TRUSTED)
    assert caught.value.code == "manifest_invalid"


def test_signer_must_be_the_account_that_is_named() -> None:
    """Another key, or an account that nobody trusts, signs nothing."""
    with pytest.raises(ManifestInvalid) as caught:
        signed(POLICY, SigningKey.generate()).verify(TRUSTED)
    assert caught.value.code == "manifest_invalid"
    with pytest.raises(
        ManifestInvalid, match="account 'bob' is not trusted here; trusted: ada"
    ) as no:
        signed(POLICY, KEY, account="bob").verify(TRUSTED)
    assert no.value.code == "account_not_trusted"


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", '{"manifest":{},"signature":""}', '{"manifest":1,"signature":"AA=="}'],
)
def test_other_texts_are_refused(text: str) -> None:
    """Anything that is no signed manifest is refused by its code."""
    with pytest.raises(ManifestInvalid) as caught:
        SignedManifest.from_json(text)
    assert caught.value.code == "manifest_invalid"


def test_other_spelling_is_refused() -> None:
    """One spelling only: a space more is another text."""
    text = signed(POLICY, KEY).to_json()
    with pytest.raises(ManifestInvalid, match="canonical"):
        SignedManifest.from_json(text.replace(":", ": ", 1))


def test_manifest_is_valid_for_its_time() -> None:
    """Before it was made and after its end it is refused; clocks may differ by five minutes."""
    manifest = draw(POLICY, valid=timedelta(hours=1))
    now = datetime.now(UTC)
    manifest.check_time(now)
    manifest.check_time(now - timedelta(minutes=4))
    for moment in (now - timedelta(minutes=10), now + timedelta(hours=2)):
        with pytest.raises(ManifestInvalid) as caught:
            manifest.check_time(moment)
        assert caught.value.code == "manifest_expired"


def test_request_must_be_the_manifests() -> None:
    """Each round's own request passes; one with any field changed is refused by that field."""
    manifest = draw(POLICY)
    for number in range(1, manifest.terms.rounds + 1):
        manifest.check_request(manifest.request(number, "hr"), "hr")
    request = manifest.request(1, "hr")
    for field, value in (
        ("noise_multiplier", 0.1),
        ("round", 2),
        ("steps", 1),
        ("run_id", "run-1"),
    ):
        altered = request.model_copy(update={field: value})
        if field == "round":
            manifest.check_request(altered, "hr")  # another round of the same run
            continue
        with pytest.raises(ManifestInvalid, match=field) as caught:
            manifest.check_request(altered, "hr")
        assert caught.value.code == "manifest_mismatch"
    beyond = request.model_copy(update={"round": 9, "rounds": 9})
    with pytest.raises(ManifestInvalid, match="round, rounds"):
        manifest.check_request(beyond, "hr")


def test_department_outside_of_the_cohort_is_not_asked() -> None:
    """A manifest speaks for its cohort alone."""
    manifest = draw(POLICY, departments=("finance", "hr"))
    with pytest.raises(ManifestInvalid, match="not in the cohort: finance, hr"):
        manifest.check_request(manifest.request(1, "it_support"), "it_support")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"departments": ("hr", "law")}, "without size or delta: law"),
        ({"departments": ("hr", "hr")}, "twice"),
        ({"departments": ()}, "departments"),
        ({"minimum_nodes": 4}, "minimum_nodes=4 is beyond the 3"),
        ({"enough": 4}, "enough=4 must lie from 1 to 3"),
        ({"round_seconds": 0.0}, "round_seconds"),
        ({"valid": timedelta(0)}, "later than created"),
    ],
)
def test_contradicting_manifest_is_never_made(changes: dict[str, object], told: str) -> None:
    """Every fault is told by its field."""
    with pytest.raises(ManifestInvalid, match=told):
        draw(POLICY, **changes)
