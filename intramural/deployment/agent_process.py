"""The node agent as a process: it owns data, policy, ledger, keys and the model, and answers rounds.

Started by ``intramural node start``. What it prints stays on the department's own screen.
"""

import argparse
import json
import logging
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from client.agent import NodeAgent
from client.agent_socket import AgentServer
from client.errors import ClientError
from client.gate import Gate, RunGate
from intramural.assets import AssetError
from intramural.auditing import included_units
from intramural.deployment.node_home import READY, NodeHome, base_model
from intramural.deployment.supervisor import MISCONFIGURED
from intramural.errors import IntramuralError
from intramural.node import encode_department, open_agent, scrub_department
from intramural.parts import detector_for
from intramural.quiet import quiet
from policies.errors import PolicyError
from policies.model import Policy
from policies.node import NodeLimits
from privacy.code_digest import code_digest
from privacy.dp.encode import Unit
from privacy.dp.errors import DpError
from privacy.dp.trainer import LoraTrainer
from privacy.errors import PrivacyError
from privacy.exchange import Array, Decline, RoundReply, RoundRequest
from privacy.files import write_atomic
from privacy.joining import now_text
from privacy.ledger.ledger import Ledger
from privacy.pii.errors import PiiError
from privacy.signing import SigningKey

_log = logging.getLogger(__name__)
_TOLD_EVERY = 500


class RunAgents:
    """One :class:`~client.agent.NodeAgent` for each run, as a run may bring canaries of its own.

    Ledger, key, model and reply store are shared; rounds of all runs take turns. At the end of a run
    the model forgets what it kept of the records, and its agent is let go.
    """

    def __init__(
        self,
        home: NodeHome,
        policy: Policy,
        units: Sequence[Unit],
        trainer: LoraTrainer,
        ledger: Ledger,
        key: SigningKey,
        gate: Gate,
    ) -> None:
        self._home = home
        self._policy = policy
        self._units = units
        self._trainer = trainer
        self._ledger = ledger
        self._key = key
        self._gate = gate
        self._agents: dict[str, NodeAgent] = {}
        self._lock = threading.Lock()

    def handle(
        self, request: RoundRequest, adapter: Mapping[str, Array], manifest: str | None = None
    ) -> RoundReply | Decline:
        """Answer one round; see :meth:`client.port.Agent.handle`."""
        with self._lock:
            # Before an agent is made for the run: one that nobody signed displaces no other.
            declined = self._gate.check(request, manifest)
            if declined is not None:
                self._note(request, declined)
                return declined
            try:
                agent = self._agents.get(request.run_id) or self._agent(request.run_id)
            except (IntramuralError, ClientError, PrivacyError, OSError) as error:
                # Nothing was spent. The words are for the department: they may name its files.
                _log.error("run %s cannot be answered: %s", request.run_id, error)
                name = self._home.settings().department
                return Decline(
                    code="unavailable",
                    reason=f"department {name!r} could not answer; its own log says why",
                )
            answer = agent.handle(request, adapter, manifest)
            self._note(request, answer)
            if request.round >= request.rounds:
                self._trainer.forget()
                self._agents.pop(request.run_id, None)
            return answer

    def close(self) -> None:
        """Forget the records."""
        self._trainer.forget()

    def _agent(self, run_id: str) -> NodeAgent:
        # A run that was left unfinished gives way: its states would be kept for nothing.
        self._agents.clear()
        self._trainer.forget()
        canaries = included_units(self._home, run_id, self._policy, self._trainer)
        agent = NodeAgent(
            department=self._home.settings().department,
            policy=self._policy,
            gate=self._gate,
            units=[*self._units, *canaries],
            trainer=self._trainer,
            ledger=self._ledger,
            key=self._key,
            state_dir=self._home.state,
            code_digest=code_digest(),
        )
        self._agents[run_id] = agent
        return agent

    def _note(self, request: RoundRequest, answer: RoundReply | Decline) -> None:
        told = {
            "run_id": request.run_id,
            "round": request.round,
            "rounds": request.rounds,
            "answer": answer.code if isinstance(answer, Decline) else "contributed",
            "at": now_text(),
        }
        try:
            write_atomic(self._home.last_round, json.dumps(told).encode(), mode=0o600)
        except OSError as error:
            # It is for the eye alone: a full disk must not lose an answer that was paid for.
            _log.warning("what was answered could not be noted: %s", error.strerror)


def build_agents(home: NodeHome, stack: ExitStack) -> RunAgents:
    """Scrub and encode the department's records, load the model, open ledger and key.

    Raises the errors of the rooms: a policy, file, model or store that stands against it.
    """
    settings, policy = home.settings(), home.policy()
    name, source = settings.department, settings.source()

    def advance(done: int, total: int) -> None:
        if done % _TOLD_EVERY < 64 or done == total:
            _say(f"scrubbing: {done:,} of {total:,} records")

    scrubbed = scrub_department(
        name,
        source,
        home,
        policy,
        lambda: detector_for(policy.pii),
        tolerance=settings.tolerance,
        advance=advance,
    )
    folder, public_name = base_model(settings.base_model)
    trainer = LoraTrainer(folder, name=public_name)
    encoded = encode_department(scrubbed, source, trainer, policy, settings.tolerance)
    for fault in encoded.faults[:20]:
        _say(f"left out: {fault}")
    # The agent that is opened here checks the units against the policy before any hub asks.
    limits = NodeLimits.read(settings.limits, source=str(home.config)).under(policy)
    gate = RunGate(name, home.hub.trusted, limits)
    _, ledger, key = open_agent(
        name, home, policy, encoded.units, trainer, code_digest(), gate=gate
    )
    stack.enter_context(ledger)
    agents = RunAgents(home, policy, encoded.units, trainer, ledger, key, gate)
    stack.callback(agents.close)
    return agents


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM; the exit code."""
    parser = argparse.ArgumentParser(prog="intramural-agent")
    parser.add_argument("--home", type=Path, required=True)
    home = NodeHome(parser.parse_args(arguments).home.absolute())
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    quiet()
    # Before the model is loaded: whoever asks for an end then gets one.
    signal.signal(signal.SIGTERM, _end)
    try:
        with ExitStack() as stack:
            agents = build_agents(home, stack)
            server = stack.enter_context(AgentServer(agents, home.socket))
            _say(READY)
            server.wait()
    except (
        IntramuralError,
        AssetError,
        ClientError,
        PolicyError,
        PrivacyError,
        DpError,
        PiiError,
    ) as error:
        _say(f"error: {error}")
        return MISCONFIGURED
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main())
