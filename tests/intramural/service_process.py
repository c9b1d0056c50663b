"""A real ``intramural serve`` and the model server behind it, each in a process of its own."""

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from signal import Signals
from typing import Any, Self

import httpx

from intramural.parts import open_keys
from intramural.stores import audit_place
from intramural.workspace import Workspace
from privacy.audit.entries import AuditEntry
from privacy.audit.log import read_log
from tests.intramural.model_server import MODEL

# The detector of patterns passes the port's contract suite; it stands in for models of 100 MB.
SERVE = (
    "import sys, intramural.service\n"
    "from privacy.pii.patterns import PatternDetector\n"
    "intramural.service.detector_for = lambda *_: PatternDetector()\n"
    "from intramural.cli import main\n"
    "sys.exit(main())\n"
)
URL = "/v1/chat/completions"


class ModelServer:
    """Runs :mod:`tests.intramural.model_server` inside the block; may be killed and started again."""

    def __init__(self) -> None:
        self.port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, on the port that it had before."""
        file = Path(__file__).with_name("model_server.py")
        command = [sys.executable, "-S", str(file), str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


class ServiceProcess:
    """Runs ``intramural serve`` with ``options`` over a workspace inside the block.

    Attributes:
        url: where it answers.
        pid: of its process.
        log: what it wrote to standard error; whole once it ended.
    """

    def __init__(
        self,
        workspace: Workspace,
        models: ModelServer,
        *options: str,
        **settings: object,
    ) -> None:
        self._options = options
        self.workspace = workspace
        releases = [each.name for each in workspace.releases.iterdir()]
        lines = [f"{name} = {json.dumps(value)}\n" for name, value in settings.items()]
        lines += [
            "[engine.upstream]\n",
            f"urls = [{json.dumps(models.url)}]\n",
            'allow_private = true\nkind = "vllm"\n',
            "read_seconds = 1.0\nconnect_seconds = 1.0\ncheck_seconds = 0.2\nfailures = 1\n",
            "rest_seconds = 0.2\n",
            "[engine.upstream.models]\n",
            *(f"{json.dumps(each)} = {json.dumps(MODEL)}\n" for each in releases),
        ]
        (workspace.root / "service.toml").write_text("".join(lines))
        keys = open_keys(workspace)
        self.key, _ = keys.create("crm", "admin")
        keys.close()

    def __enter__(self) -> Self:
        command = [sys.executable, "-c", SERVE, "serve", "--port", "0", "--json"]
        command += ["--workspace", str(self.workspace.root), *self._options]
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self.log = ""
        self._reader = threading.Thread(target=self._read, args=(self._process.stderr,))
        self._reader.start()
        lines = []
        while (line := self._process.stdout.readline()) not in ("}\n", ""):
            lines.append(line)
        if not line:
            self.end(Signals.SIGKILL)
            raise AssertionError(f"the service did not start: {self.log}")
        self.url = json.loads("".join([*lines, line]))["listening"]
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.end(Signals.SIGKILL)

    def send(self, number: Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def end(self, number: Signals = Signals.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        self._process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end; the exit code."""
        code = self._process.wait(60)
        self._reader.join(10)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code

    def client(self) -> httpx.Client:
        """Calls it with a key."""
        headers = {"Authorization": f"Bearer {self.key}"}
        limits = httpx.Limits(max_connections=200)
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, limits=limits)

    def calls(self) -> list[AuditEntry]:
        """The audit entries about calls so far."""
        with read_log(audit_place(self.workspace)) as log:
            entries = [stored.entry for stored in log.entries()]
        return [entry for entry in entries if entry.kind == "call"]

    def _read(self, stream: Any) -> None:
        with stream:
            for line in stream:
                self.log += line


def chat(said: str, **fields: object) -> dict[str, Any]:
    """A body that the model server understands."""
    turns = [{"role": "user", "content": said}]
    return {"model": "intramural", "messages": turns, **fields}


def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Look until it holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.02)


def phases(entries: list[AuditEntry]) -> Counter[tuple[str, str]]:
    """How often each phase ended how; raises where a stream's end has no beginning, or two.

    A stream's two entries are of one request; an answer's one entry is of one request.
    """
    begun: set[str] = set()
    ended: set[str] = set()
    for entry in entries:
        request, phase = str(entry.data["request"]), entry.data["phase"]
        where = ended if phase == "ended" else begun
        assert request not in where, f"{request} is recorded twice"
        where.add(request)
    assert ended <= begun
    return Counter((str(e.data["phase"]), str(e.data["outcome"])) for e in entries)
