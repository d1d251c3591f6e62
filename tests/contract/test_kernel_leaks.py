"""Networks and services come and go on a real kernel: afterwards it and our process hold what they held before."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from typing import Any

import kernel_lab as net
import msgspec
import pytest
from msgspec.structs import replace

from afterswarm.model.network import Network, NetworkSpec
from afterswarm.model.session import Wanted
from afterswarm.model.task import Attachment, Task

pytestmark = [pytest.mark.real, pytest.mark.skipif(not net.is_root(), reason="needs root")]

ROUNDS = int(os.environ.get("AFTERSWARM_ROUNDS", "40"))  # a thousand take minutes: docs/performance.md has the result
APP = Network(
    id="app0000000000000000000000",
    spec=NetworkSpec(name="app"),
    subnet="10.200.2.0/24",
    vni=4098,
    gateways={"n1": "10.200.2.254", "n2": "10.200.2.253"},
)
WEB, CLIENT = net.target(1, "n1"), net.target(2, "n1")
FAR = net.target(3, "n2")
ENDS = {f"src={address}" for address in WEB.addresses.values()}  # of answers of the service


class Scene:
    """One host with its agent, a container that serves and one that does not; the engine's bridges are always there."""

    def __init__(self, lab: Any, agent: Any) -> None:
        self.lab, self.agent, self.rev = lab, agent, 0
        self.host = lab.hosts["n1"]
        bridge = net.bridge_name(APP.id)
        self.host.run("ip", "link", "add", bridge, "type", "bridge")
        self.host.run("ip", "addr", "add", "10.200.2.254/24", "dev", bridge)
        self.host.run("ip", "link", "set", bridge, "up")
        self.web, self.client = lab.container("n1", 1), lab.container("n1", 2)
        lab.serve("web", self.web)

    def want(self, *routes: Any, networks: tuple[Network, ...] = ()) -> None:
        self.rev += 1
        wanted = Wanted(
            rev=self.rev,
            basis=self.rev,
            networks=[*net.NETWORKS, *networks],
            routes=list(routes),
            peers=net.PEERS,
            tasks=[],
        )
        self.agent.tell("want", msgspec.to_builtins(wanted))

    def deploy(self) -> None:
        """A network, a service with a port and an address, and its containers; somebody uses it."""
        route = net.web(WEB, FAR)
        vips = {**route.vips, APP.id: "10.200.2.2"}
        self.want(replace(route, vips=vips), networks=(APP,))
        for target, where in ((WEB, self.web), (CLIENT, self.client)):
            attached = [Attachment(network_id=n, address=f"{a}/24") for n, a in target.addresses.items()]
            task = Task(id=target.task_id, node_id="n1", attachments=attached)
            self.agent.tell("started", msgspec.to_builtins(task), where.pid)
        self.want(net.web(WEB), networks=(APP,))
        assert net.ask(self.lab.outside, "10.177.0.1", 8080).startswith("web ")
        assert net.ask(self.client, net.VIP, 80).startswith("web ")

    def remove(self) -> None:
        self.want()
        for target in (WEB, CLIENT):
            self.agent.tell("stopped", target.task_id)

    def held(self) -> dict[str, object]:
        found: dict[str, object] = {}
        links = json.loads(self.host.run("ip", "-j", "link", "show"))
        found["devices"] = sorted(link["ifname"] for link in links)
        found["forwarding"] = sorted(x for x in self.host.run("bridge", "fdb").splitlines() if " dst " in x)
        found["filter"] = self.host.run("iptables", "-S")
        found["routing"] = sorted(self.host.run("ip", "rule").splitlines())
        found["routes"] = sorted(self.host.run("ip", "-4", "route", "show", "table", "all").splitlines())
        for name, where in (("host", self.host), ("web", self.web), ("client", self.client)):
            tables = where.run("nft", "list", "tables").splitlines()
            found[f"tables of {name}"] = tables
            if "table inet afterswarm" in tables:
                found[f"rules of {name}"] = net.rules(where, "table", "inet", "afterswarm")
            flows = [set(line.split()) for line in where.run("conntrack", "-L").splitlines()]
            found[f"flows of {name}"] = [x for x in flows if not x.isdisjoint(ENDS)]
        return found


@pytest.fixture
def scene() -> Iterator[Scene]:
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(contextlib.closing(net.Lab()))
        yield Scene(lab, stack.enter_context(contextlib.closing(net.Agent("n1", lab.hosts["n1"]))))


def test_many_deploys_and_removals_leave_nothing_in_the_kernel(scene: Scene) -> None:
    scene.want()
    scene.deploy()
    scene.remove()
    before, files = settled(scene), scene.agent.tell("open")
    for _ in range(ROUNDS):
        scene.deploy()
        scene.remove()
    after, opened = settled(scene), scene.agent.tell("open")
    assert after == before
    assert opened < files + ROUNDS / 4, "sockets are kept open for a moment: not the same number each time"
    assert scene.agent.tell("repairs")["done"] == {}, "what we change ourselves is nobody's damage"


def settled(scene: Scene) -> dict[str, object]:
    """Once the agent has closed what it keeps open for a moment."""
    time.sleep(1)
    scene.want()  # closes what has become ripe
    time.sleep(1)
    return scene.held()
