"""The department's page, followed from an empty folder: its commands, in its order, and no others."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployment_kit import COMMAND, Deployment, Process
from docs_kit import FENCE, read, shell_commands

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

PAGE = "docs/department-node.md"
HUB, TOKEN, RELEASE = "https://hub.example.org:9093", "TOKEN", "releases/r-0123456789abcdef0123"
"""What the page shows in place of what the hub's operator gives."""

POLICY = """version = 1
organisation = "Example Ltd"
[privacy]
epsilon = 9.0
[departments.hr]
declared_units = 20
[training]
rounds = 1
local_steps = 1
sampling_rate = 0.5
target_epsilon = 4.0
max_tokens = 128
minimum_nodes = 1
personal = true
canaries = 8
"""


class Department:
    """An administrator with a page, an empty folder, and what the page says is needed."""

    def __init__(self, folder: Path, hub: Deployment) -> None:
        folder.mkdir()
        self.folder = folder
        self.hub = hub
        self.node: Process | None = None
        self.release = ""
        rows = [{"text": f"note {i} by p{i}@example.org", "label": "ab"[i % 2]} for i in range(12)]
        (folder / "hr.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.given = {
            HUB: f"https://127.0.0.1:{hub.join_port}",
            TOKEN: hub.run("hub", "invite", "hr").stdout.strip(),
        }

    def follow(self, words: list[str]) -> str:
        """Run a command of the page; what it said."""
        assert words[0] == "intramural"
        arguments = [self.given.get(word, word) for word in words[1:]]
        if arguments[:2] == ["node", "init"]:
            arguments += ["--base-model", str(self.hub.model)]
        if arguments[:2] == ["node", "start"]:
            self.node = Process([str(COMMAND), *arguments], self.folder, self.hub.environment)
            self.node.wait_for("department hr is online")
            return ""
        if arguments[:2] == ["node", "leave"]:
            assert self.node is not None
            assert self.node.end(signal.SIGINT) == 0  # the page: stop `node start` (Ctrl-C)
        done = subprocess.run(
            [COMMAND, *arguments],
            cwd=self.folder,
            env={**os.environ, **self.hub.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(words)}:\n{done.stderr}"
        return done.stdout + done.stderr


@pytest.fixture
def department(tmp_path: Path, tiny_llama_dir: Path) -> Iterator[Department]:
    """The department hr, invited by a hub that runs."""
    hub = Deployment(tmp_path / "hub-machine", tiny_llama_dir)
    (hub.root / "policy.toml").write_text(POLICY)
    rows = [{"text": f"public {i}", "label": "ab"[i % 2]} for i in range(4)]
    public = hub.root / "public.jsonl"
    public.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = None
    try:
        hub.init_hub("--eval", str(public))
        hub.start("hub", "start").wait_for("Uvicorn running")
        made = Department(tmp_path / "department", hub)
        yield made
    finally:
        if made is not None and made.node is not None:
            made.node.end()
        hub.close()


def train(hub: Deployment) -> Path:
    """What the hub's operator does meanwhile: one run, to its release."""
    (hub.root / "run.toml").write_text('round_deadline = "5m"\n')
    hub.run("hub", "account", "add", "ada")
    run_id = hub.json("train", "start", "run.toml")["run_id"]
    hub.run("train", "watch", run_id, "--timeout", "400")
    told = hub.json("train", "status", run_id)
    assert told["metrics"]["loss"]["items"] == 4
    return hub.root / "hub" / "releases" / told["release"]


def test_the_page_leads_from_an_empty_folder_to_the_end(department: Department) -> None:
    """Every command of the page does its work, with what the hub's operator gave and nothing else.

    `node leave` comes last: a reader who has left would not go on. Everything else is in order.
    """
    commands, leave = [], []
    for language, body in FENCE.findall(read(PAGE)):
        if language == "json":
            (department.folder / "labelled.jsonl").write_text(body)
        for words in shell_commands(body) if language == "sh" else ():
            (leave if words[1:3] == ["node", "leave"] else commands).append(words)
    assert len(leave) == 1
    said = {}
    for words in commands + leave:
        if RELEASE in words and RELEASE not in department.given:
            department.given[RELEASE] = str(train(department.hub))
        said[" ".join(words[1:3])] = department.follow(words)
    assert {"node init", "node join", "node start", "node status", "node leave", "node audit",
            "node personal", "data check", "data scrub", "data evaluate-pii",
            "budget plan"} <= said.keys()  # fmt: skip
    assert "online" in said["node status"]
    release = Path(department.given[RELEASE])
    file = department.folder / f"{release.name}.hr.personal"
    assert str(file.name) in said["node personal"]
    hub = department.hub
    (hub.root / file.name).write_bytes(file.read_bytes())
    hub.run("release", "add-personal", file.name, "--workspace", "hub")
    assert (hub.root / "hub" / "personal" / release.name / "hr.personal").exists()
    assert hub.json("hub", "nodes") == {"nodes": []}
