"""A hub and a node as separate processes on loopback, with TLS and node authentication."""

import os
import shutil
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployment_kit import LOOPBACK, Deployment, Process, free_port, marked

from client.joining import HubLink
from intramural.deployment.homes import read_status
from intramural.deployment.hub_home import HubHome
from intramural.deployment.node_home import NodeHome, NodeSettings

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
TWO_MINUTES = 120.0


@pytest.fixture(scope="module")
def deployed(
    tmp_path_factory: pytest.TempPathFactory, tiny_llama_dir: Path
) -> Iterator[tuple[Deployment, Process, Process, float]]:
    """A hub and the node of hr, online; and the seconds that this took."""
    there = Deployment(tmp_path_factory.mktemp("deployed") / "d", tiny_llama_dir)
    began = time.monotonic()
    try:
        there.init_hub()
        hub = there.start("hub", "start")
        hub.wait_for("Uvicorn running")
        there.init_node("hr")
        there.join_node("hr")
        node = there.start("node", "start")
        node.wait_for("department hr is online")
        seconds = time.monotonic() - began
        hub.wait_for("hr is online")
        yield there, hub, node, seconds
    finally:
        there.close()


Deployed = tuple[Deployment, Process, Process, float]


def test_from_nothing_to_online_in_two_minutes(deployed: Deployed) -> None:
    """Hub made and started, node made, joined and started, records scrubbed, model loaded."""
    there, _, _, seconds = deployed
    assert seconds < TWO_MINUTES
    status = there.json("node", "status")
    assert status["online"] is True
    assert status["agent"] is True
    assert status["budget"]["left"] == 9.0
    (node,) = there.json("hub", "nodes")["nodes"]
    assert node["online"] is True
    assert node["same_code"] is True
    assert node["same_policy"] is True
    assert node["last_seen"] is not None


def test_no_process_goes_beyond_this_machine(deployed: Deployed) -> None:
    """Nothing is bound or connected but loopback, and no name is looked up but localhost."""
    there, *_ = deployed
    used = {line.split()[-1] for line in there.sockets()}
    assert used
    assert used <= LOOPBACK


def stranger(there: Deployment, name: str) -> NodeHome:
    """A node that nobody invited."""
    home = NodeHome(there.root / name)
    home.create(NodeSettings("finance", "none", {}, {}, 0.0, "policy.toml", ""))
    return home


def test_an_unregistered_node_gets_nothing_and_is_on_record(deployed: Deployed) -> None:
    """Flower turns its key away; the entry has the key's id."""
    there, *_ = deployed
    home = stranger(there, "stranger")
    process = there.start_supernode(home.flower_key)
    process.wait_for("Exit Code: 305")
    process.end()
    last = there.audit()[-1]
    assert last["step"] == "refused"
    assert last["path"] == "/v1/fleet/activate-node"
    assert len(last["key"]) == 16


def test_a_second_node_with_the_same_key_gets_nothing_and_is_on_record(deployed: Deployed) -> None:
    """While hr is online nobody else is, with a copy of its key."""
    there, *_ = deployed
    process = there.start_supernode(there.root / "node-hr" / "flower.key")
    process.wait_for("Exit Code: 305")
    process.end()
    assert there.audit()[-1]["step"] == "refused"
    assert there.json("node", "status", "--dir", "node-hr")["online"] is True


@pytest.mark.parametrize("token", [None, "wrong"])
@pytest.mark.parametrize("call", ["start-run", "list-runs", "register-node"])
def test_a_caller_without_an_account_gets_nothing_and_is_on_record(
    deployed: Deployed, call: str, token: str | None
) -> None:
    """Neither without a token nor with somebody's guess."""
    there, *_ = deployed
    assert post(there, f"/v1/control/{call}", token) == 401
    entry = there.audit()[-1]
    assert (entry["step"], entry["path"]) == ("refused", f"/v1/control/{call}")


def test_a_task_is_not_handed_to_a_stranger(deployed: Deployed) -> None:
    """The runtime interface asks for the SuperExec's secret."""
    there, *_ = deployed
    assert post(there, "/v1/runtime/acquire-task", None) == 401
    assert there.audit()[-1]["path"] == "/v1/runtime/acquire-task"


def post(there: Deployment, path: str, token: str | None, port: int | None = None) -> int:
    """The status of an empty message of Flower's."""
    home = HubHome(there.root / "hub")
    headers = {"Content-Type": "application/protobuf", "Accept": "application/protobuf"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(
        f"https://127.0.0.1:{port or there.superlink_port}{path}", b"", headers, method="POST"
    )
    context = ssl.create_default_context(cafile=str(home.ca))
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    try:
        with opener.open(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_the_hubs_operator_may_look(deployed: Deployed) -> None:
    """With a run account's token the control port answers; after its removal it does not."""
    there, *_ = deployed
    folder = Path(there.json("hub", "account", "add", "ada")["folder"])
    token = (folder / "token").read_text().strip()
    assert post(there, "/v1/control/list-nodes", token) == 200
    there.run("hub", "account", "remove", "ada")
    assert post(there, "/v1/control/list-nodes", token) == 401


def test_a_killed_superlink_comes_back_and_so_does_the_node(deployed: Deployed) -> None:
    """The supervisor starts it again, with the nodes that it knew."""
    there, hub, *_ = deployed
    pid = read_status(there.root / "hub")["processes"]["superlink"]["pid"]
    os.kill(pid, 9)
    hub.wait_for("superlink ended with code -9; starting again")
    hub.wait_for("Uvicorn running")
    hub.wait_for("hr is online")


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: nginx-light)")
def test_the_proxy_lets_the_fleet_through_and_nothing_else(
    deployed: Deployed, tmp_path: Path
) -> None:
    """The example of deploy/nginx, as it is but for paths and ports, in front of the hub."""
    there, *_ = deployed
    port, home = free_port(), HubHome(there.root / "hub")
    text = (ROOT / "deploy" / "nginx" / "intramural.conf").read_text()
    for ours, theirs in (
        ("listen 443", f"listen 127.0.0.1:{port}"),
        ("server_name hub.example.org", "server_name localhost"),
        ("/etc/intramural/hub", str(home.root)),
        ("127.0.0.1:9092", f"127.0.0.1:{there.superlink_port}"),
        ("127.0.0.1:9093", f"127.0.0.1:{there.join_port}"),
    ):
        assert ours in text
        text = text.replace(ours, theirs)
    (tmp_path / "site.conf").write_text(text)
    paths = "".join(
        f"{name}_temp_path {tmp_path}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;\n" if os.getuid() == 0 else ""
    (tmp_path / "nginx.conf").write_text(
        f"{user}daemon off;\npid {tmp_path}/pid;\nerror_log stderr notice;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{paths}include {tmp_path}/site.conf;\n}}\n"
    )
    command = [str(NGINX), "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
    proxy = Process(command, tmp_path, {})
    try:
        proxy.wait_for("start worker process", 30)
        assert HubLink(f"https://127.0.0.1:{port}", home.ca.read_bytes()).get("/ca")
        assert post(there, "/v1/fleet/pull-messages", None, port) == 401
        for path in ("/v1/control/list-nodes", "/v1/runtime/acquire-task", "/docs", "/"):
            assert post(there, path, home.internal_token.read_text(), port) == 404
        there.init_node("finance")
        there.join_node("finance", f"https://127.0.0.1:{port}")
        key = there.root / "node-finance" / "flower.key"
        node = there.start_supernode(key, port)
        node.wait_for("SuperNode ID")
        node.end()
    finally:
        proxy.end()
    there.run("hub", "remove", "finance")


def test_a_removed_node_cannot_come_back(deployed: Deployed) -> None:
    """Its key is unknown to Flower at once, its reports to the hub are refused."""
    there, _, node, _ = deployed
    there.run("hub", "remove", "hr")
    assert there.json("hub", "nodes") == {"nodes": []}
    assert node.end() == 0
    again = there.start("node", "start", "--dir", "node-hr")
    again.wait_for("not enrolled with this node's key")
    again.wait_for("does not let this node in")
    assert again.end() == 0


def test_both_end_on_request_and_leave_nothing_behind(deployed: Deployed) -> None:
    """Exit code 0, and no process of theirs is left."""
    there, hub, node, _ = deployed
    node.end()
    assert hub.end() == 0
    homes = (there.root / "hub", there.root / "node-hr")
    assert [marked(home) for home in homes] == [[], []]
    steps = [entry["step"] for entry in there.audit()]
    assert steps[-1] == "hub_stopped"


def test_a_second_hub_in_the_same_home_is_refused(tmp_path: Path, tiny_llama_dir: Path) -> None:
    """It says so and disturbs nothing."""
    there = Deployment(tmp_path / "d", tiny_llama_dir)
    there.init_hub()
    hub = there.start("hub", "start")
    try:
        hub.wait_for("departments join at")
        done: subprocess.CompletedProcess[str] = there.run("hub", "start", check=False)
        assert done.returncode == 1
        assert "runs already" in done.stderr
    finally:
        assert hub.end() == 0
