"""Eight nodes that train, each in an actor of Ray, under Flower's simulation runtime.

Needs the extra ``simulation``. Each node has its own folder, ledger and key, and trains a tiny
random Llama under differential privacy with the code of the deployed node; the hub is the deployed
one. What is checked is that every department is in every round and has paid what the plan says.
"""

import json
import os
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

from client.agent import NodeAgent
from client.app import make_client_app
from policies.load import parse_policy
from policies.model import Policy
from privacy.dp.accounting import epsilon
from privacy.dp.encode import encode_completion
from privacy.dp.trainer import LoraTrainer
from privacy.exchange import Decline, RoundRequest
from privacy.ledger.ledger import Ledger
from privacy.signing import SigningKey
from server.enrolment import EnrolledNode, Enrolment
from server.federation import run_federation
from server.rounds import RunPlan, RunResult

NODES, ROUNDS, UNITS = 8, 3, 40


class OpenGate:
    """Lets every round through: here nobody signs manifests."""

    def check(self, request: RoundRequest, manifest: str | None) -> Decline | None:
        """None."""
        return None


def policy() -> Policy:
    """Eight departments of fifty."""
    departments = "\n".join(f"[departments.d{i}]\ndeclared_units = 50" for i in range(NODES))
    training = f"[training]\nrounds = {ROUNDS}\nlocal_steps = 4\nsampling_rate = 0.2\n"
    text = f'version = 1\norganisation = "Benchmark"\n{departments}\n{training}'
    return parse_policy(f"{text}minimum_nodes = {NODES}\nmax_tokens = 64\n".encode(), "toml")


def tiny_model(folder: Path) -> None:
    """A random Llama of two layers, over bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = ["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = dict.fromkeys(("eos_token", "bos_token", "pad_token", "unk_token"), "<end>")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(letters),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


@cache
def agent(root: Path, place: int) -> tuple[NodeAgent, Ledger]:
    """The agent of a department, opened once in each actor that needs it."""
    trainer = LoraTrainer(root / "model")
    folder = root / f"d{place}"
    key = SigningKey.load_or_create(folder / "node.key")
    ledger = Ledger(folder / "ledger.db", key)
    units = [
        (encode_completion(trainer.tokenizer, f"case {place} {i}: ", "granted", 64),)
        for i in range(UNITS)
    ]
    opened = NodeAgent(
        department=f"d{place}",
        policy=policy(),
        units=units,
        trainer=trainer,
        ledger=ledger,
        key=key,
        state_dir=folder / "replies",
        code_digest="c" * 64,
        gate=OpenGate(),
    )
    return opened, ledger


def simulate() -> dict[str, Any]:
    """Run the simulation and say what it took.

    Raises:
        RuntimeError: a department is missing in a round, or paid another price than the plan's.
    """
    os.environ.update(FLWR_TELEMETRY_ENABLED="0", RAY_USAGE_STATS_ENABLED="0")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        tiny_model(root / "model")
        keys = {}
        for place in range(NODES):
            (root / f"d{place}").mkdir()
            keys[place] = SigningKey.load_or_create(root / f"d{place}" / "node.key")
        began = time.perf_counter()
        result = _run(root, keys)
        seconds = time.perf_counter() - began
        paid = {receipt.receipt.epsilon for receipt in result.receipts[-NODES:]}
    event = result.plan.request(1, "d0").event()
    price = epsilon([event] * ROUNDS, result.plan.deltas["d0"])
    if result.declines or len(result.receipts) != NODES * ROUNDS or paid != {price}:
        raise RuntimeError(
            f"{len(result.receipts)} contributions of {NODES * ROUNDS}, prices {sorted(paid)} where "
            f"{price} was planned, declines {[(d.department, d.reason) for d in result.declines]}"
        )
    return {"nodes": NODES, "rounds": ROUNDS, "seconds": seconds, "epsilon": price}


def _run(root: Path, keys: dict[int, SigningKey]) -> RunResult:
    # Flower and Ray are loaded here, so that the module can be read without Ray.
    from flwr.app import Context
    from flwr.serverapp import Grid, ServerApp
    from flwr.simulation import run_simulation

    # Flower draws the ids of simulated nodes; which department each is, the hub writes down.
    enrolled = root / "enrolled.json"

    def connect(context: Context) -> NodeAgent:
        return agent(root, json.loads(enrolled.read_text()).index(context.node_id))[0]

    app = make_client_app(connect)
    server, results = ServerApp(), []

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        trainer = LoraTrainer(root / "model")
        plan = RunPlan.from_policy(policy(), trainer.base_digest)
        node_ids = _connected(grid)
        enrolled.write_text(json.dumps(node_ids))
        enrolment = Enrolment(
            EnrolledNode(f"d{place}", node_id, keys[place].verify_key)
            for place, node_id in enumerate(node_ids)
        )
        adapter = trainer.initial_adapter(plan.adapter_config(), plan.seed)
        results.append(
            run_federation(grid, plan, policy(), enrolment, adapter, root / "checkpoint")
        )

    resources = {"num_cpus": 1, "num_gpus": 0.0}
    run_simulation(server, app, NODES, backend_config={"client_resources": resources})
    if not results:
        raise RuntimeError("the simulation ended without a result; its log says why")
    return results[0]


def _connected(grid: Any) -> list[int]:
    """The ids of all nodes, once they are there."""
    deadline = time.monotonic() + 60
    while len(found := list(grid.get_node_ids())) < NODES:
        if time.monotonic() > deadline:
            raise RuntimeError(f"only {len(found)} of {NODES} simulated nodes came up in 60 s")
        time.sleep(0.2)
    return found
