"""Looking for personal data never reaches for the network."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.privacy.pii.models import pii_models

GUARD = """
import sys

# Creating and binding a socket sends nothing: urllib3 does so, when imported, to look for IPv6.
HARMLESS = {"socket.__new__", "socket.bind", "socket.gethostname"}
touched = []

def watch(event, arguments):
    network = event.split(".")[0] in {"socket", "urllib", "http", "ftplib", "smtplib"}
    if network and event not in HARMLESS:
        touched.append(event)
        raise OSError(f"{event} is blocked here")

sys.addaudithook(watch)
"""

FULL = """
from pathlib import Path
from privacy.pii.detector import PiiModels, open_detector

detector = open_detector(PiiModels(*map(Path, sys.argv[1:])))
texts = [
    "Ruth Baker (ruth@corp.example, https://corp.example/a?b=c) lives at 5 High Street, Leeds.",
    "王小明的电话是13800138000，邮箱tao@example.org，住在北京市海淀区中关村大街27号。",
]
found = detector.detect_many(texts)
kinds = {span.entity for spans in found for span in spans}
assert {"PERSON", "EMAIL_ADDRESS", "URL", "ADDRESS", "PHONE_NUMBER"} <= kinds, kinds
print("found", len(found), "touched", touched)
"""

TRIPPED = """
import socket
try:
    socket.getaddrinfo("corp.example", 443)
except OSError:
    pass
print("found 2 touched", touched)
"""


def run(program: str, *arguments: str) -> str:
    root = Path(__file__).parents[3]
    finished = subprocess.run(
        [sys.executable, "-c", GUARD + program, *arguments],
        cwd=root,
        env={**os.environ, "HF_HUB_OFFLINE": "0", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


@pytest.mark.e2e
def test_the_full_detector_opens_and_works_without_network() -> None:
    """Opening both languages and reading texts connects nowhere, looks up no name, opens no URL."""
    models = pii_models()
    folders = (models.spacy_en, models.token_classifier_en, models.lexical_zh)
    assert run(FULL, *map(str, folders)) == "found 2 touched []"


def test_the_guard_notices_a_look_up() -> None:
    """The check itself fails where a name is looked up."""
    assert run(TRIPPED) == "found 2 touched ['socket.getaddrinfo']"
