"""Damage done by hand, on real kernels: two hosts with their agents, and connections that live through all of it.

The engine is in memory; its bridges and firewall are those of `kernel_lab`.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kernel_lab as net
import msgspec
import pytest

from afterswarm.core.dataplane import paths
from afterswarm.model import repair
from afterswarm.model.session import Wanted
from afterswarm.model.task import Attachment, Task

HERE = Path(__file__).parent
pytestmark = [pytest.mark.real, pytest.mark.skipif(not net.is_root(), reason="needs root")]

WITHIN = 5.0  # seconds
BRIDGE, TUNNEL = "aswbackend000", "asxbackend000"


class Echo:
    """Gives back what it gets, on port 80."""

    def __init__(self, where: Any) -> None:
        self._listener = where.socket()
        self._listener.bind(("0.0.0.0", 80))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=self._listener.accept()[:1], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            while said := client.recv(100):
                client.sendall(said)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class Stream:
    """One connection with data going there and back all the time. `failed`: how it ended, if it did."""

    def __init__(self, name: str, where: Any, address: str, port: int) -> None:
        self.name = name
        self.count = 0
        self.failed = ""
        self._socket = where.socket()
        self._socket.settimeout(10)
        self._socket.connect((address, port))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._over.wait(0.01):
                self._socket.sendall(b"x")
                if not self._socket.recv(1):
                    raise ConnectionResetError("the other side has ended it")
                self.count += 1
        except OSError as error:
            self.failed = str(error)

    def close(self) -> None:
        self._over.set()
        self._thread.join(12)
        self._socket.close()


class Scene:
    """A service with a task on each host, a client in a container of n1 and one outside."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.lab = stack.enter_context(contextlib.closing(net.Lab()))
        self.host = self.lab.hosts["n1"]
        self.agents = {n: stack.enter_context(contextlib.closing(net.Agent(n, h))) for n, h in self.lab.hosts.items()}
        targets = [net.target(1, "n1"), net.target(2, "n2"), net.target(3, "n1")]
        places = {"t1": "n1", "t2": "n2", "t3": "n1"}
        self.containers = {t: self.lab.container(node, int(t[1:])) for t, node in places.items()}
        far = [net.target(2, "n2")]  # the way there is the longest
        route = net.web(*far)
        wanted = Wanted(rev=1, basis=1, networks=net.NETWORKS, routes=[route], peers=net.PEERS, tasks=[])
        for agent in self.agents.values():
            agent.tell("want", msgspec.to_builtins(wanted))
        for target in targets:
            attached = [Attachment(network_id=n, address=f"{a}/24") for n, a in target.addresses.items()]
            task = Task(id=target.task_id, node_id=target.node_id, attachments=attached)
            where = self.containers[target.task_id]
            # an engine's own name server is led to by such rules
            led = ["-d", "127.0.0.11", "-p", "udp", "-j", "DNAT", "--to-destination", "127.0.0.11:1053"]
            where.run("iptables", "-t", "nat", "-A", "OUTPUT", *led)
            self.agents[target.node_id].tell("started", msgspec.to_builtins(task), where.pid)
        stack.enter_context(contextlib.closing(Echo(self.containers["t2"])))
        self.streams = [
            stack.enter_context(contextlib.closing(Stream(name, where, address, port)))
            for name, where, address, port in (
                ("through the mesh", self.lab.outside, "10.177.0.1", 8080),
                ("to the virtual address", self.containers["t3"], net.VIP, 80),
            )
        ]

    def holds(self) -> tuple[object, ...]:
        """All that the host should hold, and the client's container."""
        host, inner = self.host, self.containers["t3"]
        forwarding = host.run("bridge", "fdb").splitlines()
        found = [x for x in forwarding if " dst " in x or ("master asw" in x and x.endswith("static"))]
        links = [x.split("qdisc")[0] for x in host.run("ip", "-o", "link").splitlines() if "asx" in x or "asw" in x]
        return (
            sorted(x.partition(":")[2] for x in links),
            sorted(found),
            sorted(host.run("ip", "-o", "-4", "addr").splitlines()),
            # who is alive is the kernel's own business
            re.sub(r"set alive {.*?\n\t}", "", host.run("nft", "list", "table", "inet", "afterswarm"), flags=re.DOTALL),
            inner.run("nft", "list", "table", "inet", "afterswarm"),
            sorted(host.run("ip", "rule").splitlines()),
            sorted(host.run("ip", "-4", "route", "show", "table", "all", "type", "unicast").splitlines()),
        )


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with contextlib.ExitStack() as stack:
        yield Scene(stack)


def until(what: str, ready: Callable[[], bool], within: float = WITHIN) -> None:
    ends = time.monotonic() + within
    while not ready():
        assert time.monotonic() < ends, f"{what}: not within {within} s"
        time.sleep(0.05)


def flush_table(scene: Scene) -> None:
    scene.host.run("nft", "flush", "table", "inet", "afterswarm")


def delete_table(scene: Scene) -> None:
    scene.host.run("nft", "delete", "table", "inet", "afterswarm")


def delete_devices(scene: Scene) -> None:
    scene.host.run("ip", "link", "del", TUNNEL)
    scene.host.run("ip", "link", "del", "asxingress000")


def flush_forwarding(scene: Scene) -> None:
    for device in (BRIDGE, "aswingress000", TUNNEL, "asxingress000"):
        scene.host.run("bridge", "fdb", "flush", "dev", device)


def delete_routes(scene: Scene) -> None:
    scene.host.run("ip", "rule", "del", "priority", str(paths.PRIORITY))
    scene.host.run("ip", "route", "flush", "table", str(paths.MARK | 253))
    scene.host.run("ip", "route", "del", net.INGRESS.subnet, "dev", "aswingress000")


def bridge_down(scene: Scene) -> None:
    scene.host.run("ip", "link", "set", BRIDGE, "down")
    scene.host.run("ip", "link", "set", "aswingress000", "down")


def take_address(scene: Scene) -> None:
    scene.host.run("ip", "addr", "del", net.INGRESS.gateways["n1"] + "/24", "dev", "aswingress000")


def forget_a_port(scene: Scene) -> None:
    scene.host.run("ip", "link", "set", TUNNEL, "nomaster")


def containers_rules(scene: Scene) -> None:
    scene.containers["t3"].run("nft", "delete", "table", "inet", "afterswarm")


def dockers_filter(scene: Scene) -> None:
    scene.host.run("iptables", "-F", "DOCKER-USER")


def another_firewall(scene: Scene) -> None:
    """As `systemctl reload nftables` does: everything away, its own rules instead."""
    own = "table inet filter {\n chain input {\n type filter hook input priority 0\n tcp dport 22 accept\n }\n}\n"
    scene.host.run("nft", "-f", "-", stdin=f"flush ruleset\n{own}")


@pytest.mark.parametrize(
    ("damage", "kinds"),
    [
        (flush_table, {repair.RULES}),
        (delete_table, {repair.RULES}),
        (delete_devices, {repair.LINKS}),
        (flush_forwarding, {repair.FDB}),
        (delete_routes, {repair.ROUTES}),
        (bridge_down, {repair.LINKS}),
        (take_address, {repair.LINKS}),
        (forget_a_port, {repair.LINKS}),
        (containers_rules, {repair.RULES}),
        (dockers_filter, {repair.FIREWALL}),
        (another_firewall, {repair.RULES}),
    ],
)
def test_damage_is_repaired_and_counted_and_cuts_no_connection(
    scene: Scene, damage: Callable[[Scene], None], kinds: set[str]
) -> None:
    before, holds = scene.agents["n1"].repairs(), scene.holds()
    streams = {stream: stream.count for stream in scene.streams}
    until("data flows", lambda: all(s.count > count for s, count in streams.items()))
    damage(scene)
    until("it is counted", lambda: kinds <= grown(before, scene.agents["n1"].repairs()))
    try:
        until("all is as it was", lambda: scene.holds() == holds)
    except AssertionError:
        for one, other in zip(holds, scene.holds(), strict=True):
            assert one == other
        raise
    for stream in scene.streams:
        count = stream.count
        # what was lost on the way is sent again by TCP, which doubles its patience each time
        until(f"data flows {stream.name} ({stream.failed})", lambda: stream.count > count + 5, 3 * WITHIN)  # noqa: B023


def grown(before: dict[str, int], now: dict[str, int]) -> set[str]:
    return {kind for kind, count in now.items() if count > before.get(kind, 0)}
