"""What ``node status`` tells; for the department alone, and loading no model."""

from typing import Any

from intramural.deployment.homes import read_object, read_status
from intramural.deployment.node_home import NodeHome
from intramural.errors import IntramuralError
from policies.errors import PolicyError
from privacy.errors import PrivacyError


def node_status(home: NodeHome) -> dict[str, Any]:
    """The state of a node; nothing here needs it to run.

    ``online``: its SuperNode is connected. ``agent``: it answers at its socket. ``budget``: None
    where policy or ledger cannot be read, and ``problem`` then says why.
    """
    running = read_status(home.root)
    contact = running.get("hub", {})
    processes = running.get("processes", {})
    connected = processes.get("supernode", {}).get("state") == "running"
    problem = contact.get("error")
    try:
        hub: str | None = home.hub.read().hub if home.hub.joined else None
    except PrivacyError as error:
        hub, problem = None, str(error)
    budget = None
    try:
        budget = _budget(home)
    except (PrivacyError, PolicyError, IntramuralError) as error:
        problem = problem or str(error)
    return {
        "department": home.settings().department,
        "home": str(home.root),
        "hub": hub,
        "running": bool(running),
        # The hub's word where it has one: a SuperNode that lost its connection tries on silently.
        "online": connected and contact.get("online") is not False,
        "agent": processes.get("agent", {}).get("state") == "running" and home.socket.is_socket(),
        "last_contact": contact.get("at"),
        "last_round": read_object(home.last_round),
        "budget": budget,
        "processes": processes,
        "problem": problem,
    }


def _budget(home: NodeHome) -> dict[str, Any]:
    from privacy.ledger.history import composed
    from privacy.ledger.ledger import read_ledger
    from privacy.signing import VerifyKey

    name = home.settings().department
    budget = home.policy().budget_of(name)
    history = read_ledger(home.ledger, VerifyKey.load(home.public_key))
    spent = composed(history.events(name, budget.block), budget.delta)
    total = float(budget.epsilon)
    return {
        "block": budget.block,
        "epsilon": total,
        "delta": budget.stated_delta,
        "spent": spent,
        "left": max(total - spent, 0.0),
    }
