"""Secrets are found by their issuers' forms and by the word before them; code and prose are left."""

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.pii.rules import find_all
from privacy.pii.rules_secrets import SECRET_RULES, looks_secret

# Put together at run time, so that no scanner of this repository takes them for leaked keys.
BODY = "q7Rt2Vx9Lm4Kp8Zs1Wd6Yb3Nc5Hf0JgTeUaXo"


def found(text: str) -> list[str]:
    return [span.of(text) for span in find_all(SECRET_RULES, text)]


@pytest.mark.parametrize(
    "value",
    [
        "AKIA" + "Q7RT2VX9LM4KP8ZS",
        "ghp_" + BODY[:36],
        "github_pat_" + BODY,
        "glpat-" + BODY[:20],
        "xoxb-" + "123456789012-" + BODY[:24],
        "sk_live_" + BODY[:24],
        "sk-proj-" + BODY,
        "sk-ant-" + "api03-" + BODY,
        "hf_" + BODY[:34],
        "npm_" + BODY[:36],
        "pypi-" + "AgEIcHlwaS5vcmc" + BODY,
        "AIza" + BODY[:35],
        "SG." + BODY[:22] + "." + BODY,
        "AC" + "0123456789abcdef" * 2,
        "123456789:" + "AA" + BODY[:33],
        "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0NTY3ODkwIn0." + BODY,
        "dapi" + "0123456789abcdef" * 2,
        "postgres://user:" + "pw@db.internal:5432/hr",
        "mongodb+srv://admin:" + "p%40ss@cluster0.example.net/test",
        "redis://:" + "pw123@cache:6379/0",
        "https://u:" + "p4ss@example.com/x",
        "jdbc:postgresql://h:5432/db?user=u&password=" + "s3cret",
        "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEow\nAbC=\n" + "-----END RSA PRIVATE KEY-----",
    ],
)
def test_issued_secrets_are_found_whole(value: str) -> None:
    """Keys, tokens, key blocks and addresses with a password are found from first to last character."""
    assert value in found(f"please use {value} for now")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("my password is Tr0ub4dor&3, ok?", "Tr0ub4dor&3"),
        ("password: correct-horse", "correct-horse"),
        ('{"password": "hunter22", "user": 1}', "hunter22"),
        ("the wifi password is 'blue elephant'", "blue elephant"),
        ("api_key = '9f8e7d6c5b4a3210'", "9f8e7d6c5b4a3210"),
        (
            "export AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfi",
            "wJalrXUtnFEMI/K7MDENG/bPxRfi",
        ),
        ("Authorization: Bearer abcDEF123456789xyz", "abcDEF123456789xyz"),
        ("curl -u admin:S3cret https://x.example", "admin:S3cret"),
        ("DB_PASSWORD=qwerty\nHOST=db", "qwerty"),
        ("the code is fine, the PIN is 4821.", "4821"),
        ("密码是abc12345，谢谢", "abc12345"),
    ],
)
def test_assigned_secrets_are_found(text: str, value: str) -> None:
    """What stands behind a word for a secret is found, quoted or not."""
    assert value in found(text)


@pytest.mark.parametrize(
    "text",
    [
        "How do I reset my password? The password is required.",
        "token = get_token()\npassword = getpass()\nsecret = os.environ['X']",
        "def login(user: str, password: str, token: str | None = None) -> None:",
        "api_key: ${API_KEY}\npassword: <your password>\nsecret: changeme(...)",
        "commit 4ccd089b28ff96da9db6c346ec114e0f5b8a319f in src/secrets_manager/token_store.py",
        "request 123e4567-e89b-12d3-a456-426614174000 took 12 ms",
        "Your password has expired; a strong password is important. The key is to listen.",
        "sk-learn, risk-adjusted and task-force-oriented plans",
    ],
)
def test_code_prose_and_hashes_are_left_alone(text: str) -> None:
    """Calls, annotations, placeholders, hashes and sentences about passwords hold no secret."""
    assert found(text) == []


def test_own_source_raises_no_alarm() -> None:
    """This package's own source, thousands of lines about secrets, holds none."""
    folder = Path(__file__).resolve().parents[3] / "privacy"
    alarms = [
        (path.name, value)
        for path in sorted(folder.rglob("*.py"))
        for value in found(path.read_text(encoding="utf-8"))
    ]
    assert alarms == []


@given(value=st.text(alphabet=string.ascii_lowercase, min_size=4, max_size=14))
def test_words_are_no_secrets(value: str) -> None:
    """A single lower-case word is never taken for a secret by its looks."""
    assert not looks_secret(value)
