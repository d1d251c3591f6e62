"""A swarm comes into being, grows, changes, loses a manager, and is left again: one story, told in order."""

from __future__ import annotations

import http.client
import json
import re
import socket
import sys
import threading
import time
from itertools import count, pairwise

import pytest
from conftest import disband
from hosts import BUSYBOX, CLIENTS, Host, until

from afterswarm.lab.lab import Lab

TOKEN = r"SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}"
NO_SWARM = (
    'Error response from daemon: This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to '
    "connect this node to swarm and try again."
)
WORKER = (
    "Error response from daemon: This node is not a swarm manager. Worker nodes can't be used to view or modify "
    "cluster state. Please run this command on a manager node or promote the current node to a manager."
)
MEMBER = (
    'Error response from daemon: This node is already part of a swarm. Use "docker swarm leave" to leave this swarm '
    "and join another one."
)
BAD_TOKEN = (
    "Error response from daemon: rpc error: code = InvalidArgument desc = A valid join token is necessary to join this "
    "cluster"
)
ANSWER_WITHIN = 6.0  # seconds; the goal is 3, and what was measured is printed
MEMBERS = """
import asyncio, msgspec
from pathlib import Path
from afterswarm.adapters.etcd.members import Members
from afterswarm.agent.trust.identity import Credentials
from afterswarm.http.client import Client
ssl = Credentials(Path("/var/lib/afterswarm/identity")).client_context()
members = Members(Client.tcp("127.0.0.1", 12379, ssl=ssl, server_hostname="127.0.0.1"))
print(msgspec.json.encode(asyncio.run(members.members())).decode())
"""


def state(host: Host) -> str:
    return host.docker("info", "--format", "{{.Swarm.LocalNodeState}}")


def untouched(host: Host) -> bool:
    """Whether the host is in no swarm and has kept nothing of one."""
    kept = host.run("find", "/var/lib/afterswarm", "-type", "f")
    return state(host) == "inactive" and not kept


def voters(host: Host) -> set[str]:
    """Node ids of the members of the store that vote."""
    return {m["name"] for m in json.loads(host.run(sys.executable, "-c", MEMBERS)) if not m["learner"]}


def node_id(host: Host) -> str:
    return host.docker("info", "--format", "{{.Swarm.NodeID}}")


def row(host: Host, name: str) -> str:
    """Status, availability and manager status of a node, as `docker node ls` shows them."""
    shown = host.docker("node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.Availability}} {{.ManagerStatus}}")
    return dict(line.split(" ", 1) for line in shown.splitlines()).get(name, "").strip()


def token(host: Host, role: str) -> str:
    return host.docker("swarm", "join-token", "-q", role)


@pytest.fixture(scope="module")
def founded(hosts: list[Host]) -> str:
    """What `docker swarm init` said on the first host."""
    return hosts[0].docker("swarm", "init", "--advertise-addr", hosts[0].address)


# ---- outside, and the first manager ----------------------------------------------------------------------------------


@pytest.mark.parametrize("client", CLIENTS)
def test_outside_a_swarm_there_is_nothing_to_manage(hosts: list[Host], client: str) -> None:
    host = hosts[0].with_client(client)
    assert untouched(host)
    for command in ("node ls", "service ls", "stack ls", "secret ls", "swarm join-token worker"):
        assert host.fails(*command.split()) == NO_SWARM, command
    assert host.fails("swarm", "leave") == "Error response from daemon: This node is not part of a swarm"
    assert " Swarm: inactive\n" in host.docker("info")


def test_init_says_how_others_join(hosts: list[Host], founded: str) -> None:
    me = node_id(hosts[0])
    assert re.fullmatch(
        rf"Swarm initialized: current node \({me}\) is now a manager\.\n\n"
        "To add a worker to this swarm, run the following command:\n\n"
        rf"    docker swarm join --token {TOKEN} 10\.77\.0\.1:2377\n\n"
        "To add a manager to this swarm, run 'docker swarm join-token manager' and follow the instructions\\.",
        founded,
    )
    assert row(hosts[0], "swarm-1") == "Ready Active Leader"


@pytest.mark.usefixtures("founded")
def test_a_second_init_is_refused_and_changes_nothing(hosts: list[Host]) -> None:
    before = node_id(hosts[0]), token(hosts[0], "worker")
    assert hosts[0].fails("swarm", "init", "--advertise-addr", hosts[0].address) == MEMBER
    assert hosts[0].fails("swarm", "join", "--token", token(hosts[0], "worker"), "10.77.0.2:2377") == MEMBER
    assert (node_id(hosts[0]), token(hosts[0], "worker")) == before


@pytest.mark.parametrize("client", CLIENTS)
def test_tokens(hosts: list[Host], founded: str, client: str) -> None:
    host = hosts[0].with_client(client)
    tokens = {role: token(host, role) for role in ("worker", "manager")}
    assert all(re.fullmatch(TOKEN, t) for t in tokens.values())
    digests = {t.split("-")[2] for t in tokens.values()}
    assert len(digests) == 1
    assert tokens["worker"] != tokens["manager"]
    assert tokens["worker"] in founded or client != next(iter(CLIENTS))
    assert host.docker("swarm", "join-token", "manager") == (
        "To add a manager to this swarm, run the following command:\n\n"
        f"    docker swarm join --token {tokens['manager']} 10.77.0.1:2377"
    )
    said = host.docker("swarm", "join-token", "--rotate", "worker")
    rotated = token(host, "worker")
    assert said == (
        "Successfully rotated worker join token.\n\n"
        "To add a worker to this swarm, run the following command:\n\n"
        f"    docker swarm join --token {rotated} 10.77.0.1:2377"
    )
    assert rotated != tokens["worker"]
    assert rotated.split("-")[2] in digests
    assert token(host, "manager") == tokens["manager"]


@pytest.mark.usefixtures("founded")
def test_joins_that_are_refused_change_nothing(hosts: list[Host]) -> None:
    first, second = hosts[:2]
    old = token(first, "worker")
    good = first.docker("swarm", "join-token", "-q", "--rotate", "worker")
    digest, secret = good.split("-")[2:]
    altered = f"SWMTKN-1-{'0' * len(digest)}-{secret}"
    dialing = (
        'Error response from daemon: rpc error: code = Unavailable desc = connection error: desc = "transport: Error '
        "while dialing: dial tcp "
    )
    refused = {
        ("a word", "10.77.0.1:2377"): "Error response from daemon: invalid join token",
        (f"SWMTKN-1-{digest}-{'0' * len(secret)}", "10.77.0.1:2377"): BAD_TOKEN,
        (old, "10.77.0.1:2377"): BAD_TOKEN,
        (altered, "10.77.0.1:2377"): "Error response from daemon: remote CA does not match fingerprint. Expected: ",
        (good, "10.77.0.3:2377"): dialing + '10.77.0.3:2377: connect: connection refused"',
        (good, "10.77.0.99:2377"): dialing + '10.77.0.99:2377: connect: no route to host"',
    }
    for (with_token, address), words in refused.items():
        said = second.fails("swarm", "join", "--token", with_token, address)
        assert said.startswith(words), (with_token, address)
        assert untouched(second), (with_token, address)
    assert first.nodes() == {"swarm-1": "Ready"}


# ---- a worker and a manager ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grown(hosts: list[Host], founded: str) -> list[Host]:  # noqa: ARG001 - it must be there
    """The second host is a worker, the third a manager."""
    first, worker, manager = hosts
    said = worker.docker("swarm", "join", "--token", token(first, "worker"), "10.77.0.1:2377")
    assert said == "This node joined a swarm as a worker."
    said = manager.docker("swarm", "join", "--token", token(first, "manager"), "10.77.0.1")
    assert said == "This node joined a swarm as a manager."
    until("the new manager is shown", lambda: row(first, "swarm-3") == "Ready Active Reachable")
    return hosts


def test_nodes_are_listed_on_every_manager(grown: list[Host]) -> None:
    for host in (grown[0], grown[2]):
        until("all are ready", lambda host=host: set(host.nodes().values()) == {"Ready"})
        assert [row(host, f"swarm-{n}") for n in (1, 2, 3)] == [
            "Ready Active Leader", "Ready Active", "Ready Active Reachable",
        ]  # fmt: skip
        assert re.search(rf"^{node_id(host)} \* +{host.name} ", host.docker("node", "ls"), re.MULTILINE)
    assert voters(grown[0]) == {node_id(grown[0]), node_id(grown[2])}


@pytest.mark.parametrize("client", CLIENTS)
def test_a_worker_manages_nothing(grown: list[Host], client: str) -> None:
    worker = grown[1].with_client(client)
    commands = (
        "node ls", "node inspect self", "service ls", "service create busybox", "swarm join-token worker", "stack ls",
        "secret ls", "config ls", "node promote swarm-2", "swarm update --task-history-limit 3",
    )  # fmt: skip
    for command in commands:
        assert WORKER in worker.fails(*command.split()), command
    assert worker.fails("swarm", "init") == MEMBER
    with pytest.raises(ConnectionRefusedError):  # workers never see the store
        socket.create_connection((worker.address, 2380), timeout=2)


@pytest.mark.parametrize("client", CLIENTS)
def test_info_has_a_block_of_the_swarm(grown: list[Host], client: str) -> None:
    manager, worker = (h.with_client(client).docker("info") for h in grown[:2])
    block = re.search(r"^ Swarm: active\n(?:  .*\n)+", manager, re.MULTILINE)
    assert block
    cluster = grown[0].docker("info", "--format", "{{.Swarm.Cluster.ID}}")
    for line in (
        f"  NodeID: {node_id(grown[0])}", "  Is Manager: true", f"  ClusterID: {cluster}", "  Managers: 2",
        "  Nodes: 3", "  Default Address Pool: 10.0.0.0/8  ", "  SubnetSize: 24", "  Data Path Port: 4789",
        "   Task History Retention Limit: 5", "   Snapshot Interval: 10000", "   Heartbeat Tick: 1",
        "   Election Tick: 10", "   Heartbeat Period: 5 seconds", "   Expiry Duration: 3 months",
        "  Autolock Managers: false", "  Root Rotation In Progress: false", "  Node Address: 10.77.0.1",
        "   10.77.0.1:2377", "   10.77.0.3:2377",
    ):  # fmt: skip
        assert f"{line}\n" in block[0], line
    assert (
        f" Swarm: active\n  NodeID: {node_id(grown[1])}\n  Is Manager: false\n  Node Address: 10.77.0.2\n"
        "  Manager Addresses:\n   10.77.0.1:2377\n   10.77.0.3:2377\n"
    ) in worker


def test_nodes_can_be_looked_at(grown: list[Host]) -> None:
    first = grown[0]
    me, other = first.json("node", "inspect", "self", "swarm-2")
    assert (me["ID"], other["ID"]) == (node_id(first), node_id(grown[1]))
    assert me["Status"] == {"State": "ready", "Addr": "10.77.0.1"}
    assert me["ManagerStatus"] == {"Leader": True, "Reachability": "reachable", "Addr": "10.77.0.1:2377"}
    assert "ManagerStatus" not in other
    assert other["Spec"] == {"Labels": {}, "Role": "worker", "Availability": "active"}
    assert other["Description"]["Hostname"] == "swarm-2"
    assert other["Description"]["Resources"]["MemoryBytes"] > 0
    assert other["Description"]["TLSInfo"]["TrustRoot"].startswith("-----BEGIN CERTIFICATE-----")
    for client in CLIENTS.values():
        pretty = Host(first.lab, first.name, client).docker("node", "inspect", "--pretty", "swarm-3")
        for line in ("Hostname:              \tswarm-3", " Raft Status:\t\tReachable", " Leader:\t\tNo"):
            assert line in pretty
    assert "Error: No such node: nobody" in first.fails("node", "inspect", "nobody")
    assert first.docker("node", "ls", "--filter", "role=worker", "-q") == node_id(grown[1])


def test_labels_and_availability(grown: list[Host]) -> None:
    first = grown[0]
    assert first.docker("node", "update", "--label-add", "zone=b", "--label-add", "disk", "swarm-2") == "swarm-2"
    assert first.json("node", "inspect", "swarm-2")[0]["Spec"]["Labels"] == {"zone": "b", "disk": ""}
    first.docker("node", "update", "--label-rm", "disk", "swarm-2")
    assert first.json("node", "inspect", "swarm-2")[0]["Spec"]["Labels"] == {"zone": "b"}
    assert "swarm-2" in first.docker("node", "ls", "--filter", "node.label=zone=b")
    first.docker("node", "update", "--availability", "pause", "swarm-2")
    assert row(first, "swarm-2") == "Ready Pause"
    first.docker("node", "update", "--availability", "active", "swarm-2")


def test_tasks_leave_a_node_that_is_drained(grown: list[Host]) -> None:
    first = grown[0]
    first.docker("service", "create", "-d", "-q", "--name", "sleepers", "--replicas", "3",
                 "--stop-grace-period", "0s", BUSYBOX)  # fmt: skip
    until("one task on each node", lambda: {n for _, n in first.running("sleepers")} == {h.name for h in grown})
    assert "sleepers.1" in first.docker("node", "ps", *(h.name for h in grown))
    first.docker("node", "update", "--availability", "drain", "swarm-2")
    until(
        "its task runs elsewhere",
        lambda: len(first.running("sleepers")) == 3 and "swarm-2" not in {n for _, n in first.running("sleepers")},
    )
    until("its container has ended", lambda: not grown[1].docker("ps", "-q"))
    assert row(first, "swarm-2") == "Ready Drain"
    first.docker("node", "update", "--availability", "active", "swarm-2")
    first.docker("service", "scale", "-d", "sleepers=5")
    until("it takes new ones", lambda: "swarm-2" in {n for _, n in first.running("sleepers")})
    first.docker("service", "rm", "sleepers")


def test_a_member_that_is_up_cannot_be_removed(grown: list[Host]) -> None:
    first, worker, manager = grown
    precondition = "Error response from daemon: rpc error: code = FailedPrecondition desc = node "
    assert first.fails("node", "rm", "swarm-2") == f"{precondition}{node_id(worker)} is not down and can't be removed"
    for force in ((), ("--force",)):
        assert first.fails("node", "rm", *force, "swarm-3") == (
            f"{precondition}{node_id(manager)} is a cluster manager and is a member of the raft cluster. It must be "
            "demoted to worker before removal"
        )
    assert first.fails("node", "rm", "nobody") == "Error: No such node: nobody"


def test_a_manager_leaves_by_force_only(grown: list[Host]) -> None:
    said = grown[2].fails("swarm", "leave")
    assert said == (
        "Error response from daemon: You are attempting to leave the swarm on a node that is participating as a "
        "manager. Removing this node leaves 1 managers out of 2. Without a Raft quorum your swarm will be "
        "inaccessible. The only way to restore a swarm that has lost consensus is to reinitialize it with "
        "`--force-new-cluster`. Use `--force` to suppress this message."
    )
    assert state(grown[2]) == "active"


# ---- three managers, and one that dies -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quorum(grown: list[Host]) -> list[Host]:
    """The worker has been promoted: three managers."""
    assert grown[0].docker("node", "promote", "swarm-2") == "Node swarm-2 promoted to a manager in the swarm."
    complete(grown)
    return grown


def complete(hosts: list[Host]) -> None:
    for host in hosts:
        until(
            f"{host.name} knows three managers",
            lambda host=host: (
                sorted(host.docker("node", "ls", "--format", "{{.Status}}{{.ManagerStatus}}").split())
                == ["ReadyLeader", "ReadyReachable", "ReadyReachable"]
            ),
        )


def test_promotion_adds_a_member_of_the_store(quorum: list[Host]) -> None:
    assert voters(quorum[1]) == {node_id(h) for h in quorum}
    assert quorum[1].nodes() == dict.fromkeys(("swarm-1", "swarm-2", "swarm-3"), "Ready")


class Writer:
    """Writes configs through one host, one after the other, and remembers those that were acknowledged."""

    def __init__(self, host: Host, names: count[int]) -> None:
        self.socket, self.names = host.place.socket, names
        self.acknowledged: dict[str, float] = {}  # name -> when
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.write)

    def write(self) -> None:
        while not self.over.is_set():
            name = f"write-{next(self.names)}"
            if self.create(name):
                self.acknowledged[name] = time.monotonic()
            self.over.wait(0.02)

    def create(self, name: str) -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            try:
                sock.connect(self.socket)
                connection = http.client.HTTPConnection("docker")
                connection.sock = sock
                connection.request("POST", "/v1.41/configs/create", json.dumps({"Name": name, "Data": "eA=="}))
                return connection.getresponse().status == 201
            except (OSError, http.client.HTTPException):
                return False


@pytest.mark.parametrize("who", ["the leader", "another manager"])
def test_a_manager_that_dies_takes_no_acknowledged_write_along(quorum: list[Host], lab: Lab, who: str) -> None:
    complete(quorum)
    leads = next(h for h in quorum if row(h, h.name).endswith("Leader"))
    victim = leads if who == "the leader" else next(h for h in quorum if h.name != leads.name)
    others = [h for h in quorum if h.name != victim.name]
    names = count(time.monotonic_ns())
    writers = {h.name: Writer(h, names) for h in quorum}
    for writer in writers.values():
        writer.thread.start()
    try:
        for writer in writers.values():
            until("writes are acknowledged", lambda writer=writer: len(writer.acknowledged) >= 5)
        lab.kill(victim.name)
        died = time.monotonic()
        until("both others write again", lambda: all(
            any(at > died + 1.5 for at in writers[h.name].acknowledged.values()) for h in others
        ))  # fmt: skip
    finally:
        for writer in writers.values():
            writer.over.set()
        for writer in writers.values():
            writer.thread.join()
    for host in others:
        moments = [died, *(at for at in writers[host.name].acknowledged.values() if at >= died)]
        longest = max(b - a for a, b in pairwise(moments))
        print(f"{who} died: longest time without an acknowledged write on {host.name}: {longest:.2f} s")
        assert longest < ANSWER_WITHIN
    written = {name for writer in writers.values() for name in writer.acknowledged}
    for host in others:
        assert written <= set(host.docker("config", "ls", "--format", "{{.Name}}").split())
    until("it is shown to be down", lambda: row(others[0], victim.name) == "Down Active Unreachable")
    until("another leads", lambda: "Ready Active Leader" in {row(others[0], h.name) for h in others})
    lab.start(victim.name)
    complete(quorum)
    until("it has everything", lambda: written <= set(victim.docker("config", "ls", "--format", "{{.Name}}").split()))
    remove_configs(others[0])


def remove_configs(host: Host) -> None:
    found = host.docker("config", "ls", "-q").split()
    while found:
        host.docker("config", "rm", *found[:200])
        found = found[200:]


# ---- and back again --------------------------------------------------------------------------------------------------


def test_demotion_removes_a_member_of_the_store(quorum: list[Host]) -> None:
    first, second, _ = quorum
    assert first.docker("node", "demote", "swarm-2") == "Manager swarm-2 demoted in the swarm."
    until("it is a worker", lambda: row(first, "swarm-2") == "Ready Active")
    until("its store has ended", lambda: not second.run("sh", "-c", "ls /var/lib/afterswarm/etcd 2>/dev/null; true"))
    assert voters(first) == {node_id(first), node_id(quorum[2])}
    until("it refuses", lambda: second.fails("node", "ls") == WORKER)


def test_who_leaves_is_down_and_can_be_removed(quorum: list[Host]) -> None:
    first, second, third = quorum
    assert second.docker("swarm", "leave") == "Node left the swarm."
    assert untouched(second)
    until("it is down", lambda: row(first, "swarm-2") == "Down Active", within=2)
    assert first.docker("node", "rm", "swarm-2") == "swarm-2"
    assert third.docker("swarm", "leave", "--force") == "Node left the swarm."
    assert untouched(third)
    until("it is down", lambda: row(first, "swarm-3") == "Down Active Unreachable", within=2)
    assert voters(first) == {node_id(first)}
    first.docker("node", "demote", "swarm-3")
    until("it is gone", lambda: first.docker("node", "rm", "swarm-3") == "swarm-3", within=10)
    assert first.nodes() == {"swarm-1": "Ready"}


def test_the_last_manager_takes_everything_along(quorum: list[Host]) -> None:
    assert (
        quorum[0]
        .fails("swarm", "leave")
        .endswith(
            "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message."
        )
    )
    disband(quorum)
    assert untouched(quorum[0])
    for host in quorum:
        assert "afterswarm" not in host.run("nft", "list", "tables")
        assert "asw" not in host.run("ip", "-brief", "link")
