"""``hub start``: the hub's processes, its join service and its audit log, in one foreground command."""

import os
import re
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Final

from intramural.deployment.certificates import expiry_warning
from intramural.deployment.environment import CHATTER, beside, flower_environment
from intramural.deployment.homes import HomeUnusable, only_one, write_status
from intramural.deployment.hub_home import HubHome, policy_document, utc_text
from intramural.deployment.supervisor import Child, OnSupervisor, Say, Supervisor
from privacy.audit.entries import AuditEntry
from privacy.audit.log import AuditLog
from privacy.joining import now_text
from server.audit_socket import AuditServer
from server.errors import HubError
from server.flower_control import ControlUnavailable
from server.join_service import JoinService
from server.joining import HubFacts, JoinDesk

KEEPER: Final = "intramural.deployment.runs"
"""The module that submits, watches and resumes runs; supervised like the rest."""

_WATCH = 2.0
_LAST_SEEN = 60.0


def run_hub_processes(home: HubHome, say: Say, on_supervisor: OnSupervisor) -> None:
    """Run the hub until it is told to stop; ``on_supervisor`` gets what stops it.

    Raises:
        HomeUnusable: the hub runs already, or its certificate has expired.
        ChildFailed, HubError: a process or the join service cannot work.
    """
    settings = home.settings()
    with ExitStack() as stack:
        stack.enter_context(only_one(home.root, "the hub"))
        until = home.certificate_expires()
        if warning := expiry_warning(until):
            say("hub", f"warning: {warning}")
            if "expired" in warning:
                raise HomeUnusable(warning)
        if home.policy() is None:
            say("hub", f"no policy yet: name one in {home.config}; no run can be planned without")
        # First: whatever follows is on record.
        log = stack.enter_context(AuditLog(home.audit_db, home.key(), home.origin()))
        stack.enter_context(AuditServer(log, home.audit_socket))
        log.append(AuditEntry.now("run_step", "hub", {"step": "hub_started"}))
        watch = _NodeWatch(home, say)
        desk = JoinDesk(
            home.members, home.key(), lambda: facts_of(home), home.control, log,
            is_online=watch.is_online,
        )  # fmt: skip
        stack.callback(desk.close)
        stack.enter_context(
            JoinService(
                desk,
                settings.host,
                settings.join_port,
                ca=home.ca,
                certificate=home.certificate,
                key=home.certificate_key,
            )
        )
        say("join", f"departments join at {settings.join_address}")
        began = now_text()

        def changed(states: Mapping[str, Mapping[str, object]]) -> None:
            write_status(
                home.root,
                {
                    "pid": os.getpid(),
                    "started": began,
                    "superlink": settings.superlink_address,
                    "join": settings.join_address,
                    "certificate_expires": utc_text(until),
                    "processes": states,
                },
            )

        supervisor = Supervisor(_children(home), str(home.root), say, changed)
        on_supervisor(supervisor)
        stack.callback(
            lambda: log.append(AuditEntry.now("run_step", "hub", {"step": "hub_stopped"}))
        )
        with watch.running(desk):
            supervisor.run()


def facts_of(home: HubHome) -> HubFacts:
    """What the hub tells its nodes now, read anew.

    Raises:
        PolicyError, HomeUnusable: the policy or the settings cannot be used.
    """
    settings, policy = home.settings(), home.policy()
    path = home.policy_path()
    document = None if path is None else policy_document(path)
    return HubFacts(
        name=settings.name,
        superlink=settings.superlink_address,
        certificate_expires=utc_text(home.certificate_expires()),
        accounts=home.accounts.trusted(),
        departments=None if policy is None else frozenset(policy.departments),
        policy=None if policy is None or document is None else (policy.digest, *document),
    )


def hub_environment(home: HubHome) -> dict[str, str]:
    """What every process of the hub finds: Flower's settings, and where the hub keeps what."""
    return flower_environment(home.flwr_home) | {
        "INTRAMURAL_HUB": str(home.root),
        "INTRAMURAL_ACCOUNTS": str(home.accounts_file),
        "INTRAMURAL_AUDIT_SOCKET": str(home.audit_socket),
        "INTRAMURAL_ENROLMENT": str(home.enrolment),
        "INTRAMURAL_SIGNING_KEY": str(home.signing_key),
        "INTRAMURAL_OUTPUT_DIR": str(home.root),
        "INTRAMURAL_AUDIT_ORIGIN": home.origin(),
    }


def _children(home: HubHome) -> list[Child]:
    settings = home.settings()
    environment = hub_environment(home)
    superlink = [
        sys.executable, "-m", "server.superlink",
        "--host", settings.host, "--port", str(settings.port),
        "--database", str(home.superlink_db),
        "--ssl-ca-certfile", str(home.ca),
        "--ssl-certfile", str(home.certificate),
        "--ssl-keyfile", str(home.certificate_key),
        "--enable-supernode-auth", "--isolation", "process",
        "--superexec-auth-secret-file", str(home.superexec_secret),
        "--disable-runtime-dependency-installation",
    ]  # fmt: skip
    superexec = [
        beside("flower-superexec"),
        "--root-certificates", str(home.ca),
        "--runtime-api-address", home.local_address(),
        "--superexec-auth-secret-file", str(home.superexec_secret),
        "--parent-pid", str(os.getpid()),
    ]  # fmt: skip
    working = re.compile(r"Uvicorn running on|Application startup complete")
    folder = home.root
    return [
        Child("superlink", superlink, environment, ready=working, folder=folder, hidden=CHATTER),
        Child(
            "superexec", superexec, environment,
            after=("superlink",), folder=folder, hidden=CHATTER,
        ),
        Child(
            "keeper", [sys.executable, "-m", KEEPER], environment,
            after=("superlink",), folder=folder,
        ),
    ]  # fmt: skip


class _NodeWatch:
    """Follows which nodes Flower sees, tells of changes, and keeps Flower's list like the hub's."""

    def __init__(self, home: HubHome, say: Say) -> None:
        self._home = home
        self._say = say
        self._online: dict[int, bool] = {}
        self._noted: dict[int, float] = {}
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def is_online(self, node_id: int) -> bool | None:
        """Whether Flower sees the node connected at this moment; None where it does not answer."""
        try:
            with self._home.control() as control:
                return any(node.node_id == node_id and node.online for node in control.nodes())
        except ControlUnavailable:
            return None

    def running(self, desk: JoinDesk) -> ExitStack:
        """A context in which the watch runs."""
        stack = ExitStack()
        self._thread = threading.Thread(target=self._run, args=(desk,), daemon=True)
        self._thread.start()
        stack.callback(self._thread.join)
        stack.callback(self._ending.set)
        return stack

    def _run(self, desk: JoinDesk) -> None:
        reconciled = False
        while not self._ending.wait(_WATCH):
            try:
                if not reconciled:
                    desk.reconcile()
                    reconciled = True
                self._look()
            except ControlUnavailable:
                self._online.clear()
            except HubError as error:
                self._say("hub", f"the list of nodes cannot be brought up to date: {error}")

    def _look(self) -> None:
        members = {member.node_id: member for member in self._home.members.read().values()}
        with self._home.control() as control:
            for node in control.nodes():
                member = members.get(node.node_id)
                if member is None:
                    if not self._joining(node.node_id):
                        control.unregister(node.node_id)
                    continue
                changed = self._online.get(node.node_id) != node.online
                if changed and (node.online or node.node_id in self._online):
                    state = "online" if node.online else "offline"
                    self._say("nodes", f"{member.department} is {state}")
                self._online[node.node_id] = node.online
                due = time.monotonic() - self._noted.get(node.node_id, 0.0) > _LAST_SEEN
                if node.last_seen is not None and (changed or due):
                    self._home.members.note(member.department, last_seen=node.last_seen)
                    self._noted[node.node_id] = time.monotonic()

    def _joining(self, node_id: int) -> bool:
        """A node that Flower knows and the hub does not may be about to join: it gets one look."""
        first = node_id not in self._noted
        self._noted[node_id] = time.monotonic()
        return first
