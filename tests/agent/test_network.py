"""The network of one host, on a simulated engine and kernel, in virtual time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from afterswarm.agent.network import bridges, network, silence
from afterswarm.agent.network.keys import Keys
from afterswarm.agent.network.network import Network
from afterswarm.core.dataplane.ruleset import NOTHING
from afterswarm.core.dns.zone import Zone
from afterswarm.core.host.guests import as_tasks
from afterswarm.model import repair
from afterswarm.model.guest import Guest
from afterswarm.model.network import LABEL, NetworkSpec
from afterswarm.model.network import Network as Overlay
from afterswarm.model.service import PortConfig
from afterswarm.model.session import Peer, Route, Target, Wanted
from afterswarm.model.task import Attachment, Task
from afterswarm.ports import EngineError
from afterswarm.sim.clock import LoopClock
from afterswarm.sim.engine import SimEngine
from afterswarm.sim.kernel import SimKernel

pytestmark = pytest.mark.looptime

NODES = ["n1", "n2", "n3"]
PEERS = [Peer(node_id=n, hostname=n, address=f"10.77.0.{i}") for i, n in enumerate(NODES, start=1)]


def overlay(name: str, number: int, *, ingress: bool = False) -> Overlay:
    return Overlay(
        id=f"{name:0<25}",
        spec=NetworkSpec(name=name, ingress=ingress),
        subnet=f"10.0.{number}.0/24",
        vni=4096 + number,
        gateways={n: f"10.0.{number}.{250 + i}" for i, n in enumerate(NODES, start=1)},
    )


INGRESS, BACKEND = overlay("ingress", 0, ingress=True), overlay("backend", 1)


def target(number: int, node: str, *, ready: bool = True) -> Target:
    addresses = {INGRESS.id: f"10.0.0.{number}", BACKEND.id: f"10.0.1.{number}"}
    return Target(task_id=f"t{number}", node_id=node, name=f"web.{number}.t{number}", addresses=addresses, ready=ready)


def web(*targets: Target) -> Route:
    ports = [PortConfig(target_port=80, published_port=8080)]
    return Route(service_id="s", name="web", vips={BACKEND.id: "10.0.1.2"}, ports=ports, targets=list(targets))


def task(number: int, *networks: Overlay) -> Task:
    found = networks or (BACKEND, INGRESS)
    attachments = [Attachment(network_id=n.id, address=f"10.0.{n.vni - 4096}.{number}/24") for n in found]
    return Task(id=f"t{number}", node_id="n1", attachments=attachments)


def wanted(*routes: Route, rev: int = 1, networks: tuple[Overlay, ...] = (INGRESS, BACKEND)) -> Wanted:
    return Wanted(rev=rev, networks=list(networks), routes=list(routes), peers=PEERS, tasks=[task(11)])


class Host:
    """A host with running containers of pid 111 and 112, and beats from its peers unless they are made silent."""

    def __init__(self) -> None:
        self.clock = LoopClock(1_700_000_000)
        self.engine = SimEngine(clock=self.clock)
        self.kernel = SimKernel(processes={111, 112})
        self.heard: dict[str, float] = {}
        self.silent: set[str] = set()
        self.named: list[tuple[Zone, list[str], list[str]]] = []
        self.held: frozenset[str] = frozenset()
        self.network = self.daemon()

    def daemon(self, keys: Keys | None = None) -> Network:
        return Network(
            engine=self.engine,
            kernel=self.kernel,
            node_id="n1",
            clock=self.clock,
            heard=self.heard,
            keys=keys,
            tell=self.tell,
            hold=self.hold,
        )

    async def tell(self, zone: Zone, addresses: list[str]) -> None:
        self.named.append((zone, addresses, self.published()))

    def hold(self, addresses: frozenset[str]) -> None:
        self.held = addresses

    async def beat(self) -> None:
        while True:
            for node in {"n2", "n3"} - self.silent:
                self.heard[node] = self.clock.now()
            await asyncio.sleep(0.1)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(self.beat()), group.create_task(self.network.run())]
            yield
            for each in running:
                each.cancel()

    def published(self) -> list[str]:
        return sorted(re.findall(r"0x\w+ : ([0-9.]+) \. ", self.kernel.rulesets.get(None, "")))

    def virtual(self, pid: int = 111) -> list[str]:
        return ring(self.kernel.rulesets.get(pid, ""))

    def engine_networks(self) -> dict[str, str]:
        return {n["Name"]: n["Labels"][LABEL] for n in self.engine.nets.values()}


def ring(ruleset: str) -> list[str]:
    return sorted(re.findall(r"\d+ : ([0-9.]+)", ruleset))


@pytest.fixture
def host() -> Host:
    return Host()


async def test_a_host_routes_as_it_is_told(host: Host) -> None:
    async with host.running():
        host.network.want(wanted(web(target(11, "n1"), target(12, "n2"))))
        await asyncio.sleep(1)
        assert host.published() == ["10.0.0.11", "10.0.0.12"]
        assert host.engine_networks() == {"ingress": INGRESS.id, "backend": BACKEND.id}
        assert sorted(host.kernel.links) == ["asxbackend000", "asxingress000"]
        assert host.network.applied == 1
        assert host.named[-1][1] == ["10.0.0.251", "10.0.1.251"]
        host.network.want(Wanted(rev=2, routes=[web(target(12, "n2"))]))
        await asyncio.sleep(0.1)
        assert host.published() == ["10.0.0.12"]
        assert host.network.applied == 2


async def test_nothing_is_touched_before_a_manager_has_spoken(host: Host) -> None:
    async with host.running():
        await host.network.started(task(11), 111)
        await asyncio.sleep(60)
        assert host.kernel.writes == 0
        assert host.engine.nets == {}
        host.network.want(wanted(web(target(11, "n1"))))
        await asyncio.sleep(1)
        assert host.virtual() == ["10.0.1.11"]


async def test_a_lagging_manager_is_not_followed(host: Host) -> None:
    async with host.running():
        host.network.want(wanted(web(target(11, "n1")), rev=5))
        host.network.want(wanted(rev=4))
        await asyncio.sleep(1)
        assert host.published() == ["10.0.0.11"]


async def test_a_container_is_given_its_place(host: Host) -> None:
    async with host.running():
        host.network.want(wanted(web(target(11, "n1"))))
        assert await host.network.prepare(task(11)) == [
            ("backend", {"IPAMConfig": {"IPv4Address": "10.0.1.11"}, "MacAddress": "02:42:0a:00:01:0b"}),
            ("ingress", {"IPAMConfig": {"IPv4Address": "10.0.0.11"}, "MacAddress": "02:42:0a:00:00:0b"}),
        ]
        assert "asxbackend000" in host.kernel.links, "the tunnel is there before the container"
        assert host.network.dns(task(11, INGRESS, BACKEND)) == ["10.0.1.251"]
        assert host.network.dns(task(11, INGRESS)) == ["10.0.0.251"]
        assert host.network.dns(Task(id="x")) == []
        await host.network.started(task(11), 111)
        assert host.virtual() == ["10.0.1.11"], "its rules are there when `started` returns"


SEALED = msgspec.structs.replace(
    overlay("sealed", 2), spec=NetworkSpec(name="sealed", options={"encrypted": ""}), gateways={"n1": "10.0.2.251"}
)


@pytest.mark.parametrize("able", [True, False])
async def test_a_network_of_both_families_on_hosts_that_have_both_and_on_others(host: Host, *, able: bool) -> None:
    if not able:
        host.network.without_ipv6()
    entered = replace(INGRESS, subnet6="fd00::/64")
    backend = replace(BACKEND, subnet6="fd00:1::/64")
    host.kernel.sources6[111] = "fd00:1::b"
    web6 = replace(
        web(replace(target(12, "n2"), addresses6={backend.id: "fd00:1::c"})), vips6={backend.id: "fd00:1::2"}
    )
    async with host.running():
        host.network.want(wanted(web6, networks=(entered, backend)))
        await asyncio.sleep(1)
        endpoints = dict(await host.network.prepare(task(11, backend)))
        await host.network.started(task(11), 111)
        await asyncio.sleep(1)
        made = {n["Name"]: n for n in host.engine.nets.values()}
        assert made["backend"].get("EnableIPv6", False) == able
        gateways = [pool["Gateway"] for pool in made["backend"]["IPAM"]["Config"]]
        assert gateways == ["10.0.1.251", *(["fd00:1::fb"] if able else [])]
        assert endpoints["backend"]["IPAMConfig"].get("IPv6Address", "") == ("fd00:1::b" if able else "")
        inside = host.kernel.rulesets[111]
        assert ("fd00:1::2" in inside) == ("fd00:1::c" in inside) == able
        assert ("ip6 daddr fd00::b meta l4proto udp dnat ip6 to fd00:1::b" in inside) == able
        assert host.kernel.forwards_ipv6 == able


async def test_an_encrypted_network_has_its_tunnel_before_its_container(host: Host, tmp_path: Path) -> None:
    keys = Keys(host.kernel, tmp_path / "key")
    assert await keys.look()
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    again = Keys(host.kernel, tmp_path / "key")
    await again.look()
    assert (again.public, again.private) == (keys.public, keys.private), "it stays the same"
    host.network = host.daemon(keys)
    peers = [replace(p, wireguard=keys.public) if p.node_id == "n1" else p for p in PEERS]
    async with host.running():
        host.network.want(replace(wanted(networks=(INGRESS, BACKEND)), peers=peers))
        await asyncio.sleep(1)
        assert host.kernel.wireguard is None, "nothing runs that nobody needs"
        host.network.want(Wanted(rev=2, networks=[INGRESS, SEALED]))
        [(name, _)] = await host.network.prepare(task(11, SEALED))
        assert name == "sealed"
        assert host.kernel.wireguard
        assert host.kernel.links["asxsealed0000"]["via"] == "as-wireguard"
        host.network.want(Wanted(rev=3, networks=[INGRESS]))
        await asyncio.sleep(1)
        assert host.kernel.wireguard is None
        keys.forget()
        assert not (tmp_path / "key").exists()


async def test_a_host_that_cannot_encrypt_says_why(host: Host, tmp_path: Path) -> None:
    """And the rest of its network goes on."""
    host.kernel.cannot_encrypt = "there is no wireguard-go"
    keys = Keys(host.kernel, tmp_path / "key")
    assert not await keys.look()
    host.network = host.daemon(keys)
    why = "network sealed is encrypted, and this node cannot encrypt: there is no wireguard-go"
    async with host.running():
        host.network.want(wanted(networks=(INGRESS, replace(SEALED, gateways={}))))
        with pytest.raises(EngineError, match=why):
            await host.network.prepare(task(11, SEALED))
        host.network.want(wanted(rev=2, networks=(INGRESS, BACKEND, SEALED)))  # it had a place, from better days
        with pytest.raises(EngineError, match="there is no wireguard-go"):
            await host.network.prepare(task(11, SEALED))
        assert await host.network.prepare(task(11, BACKEND))
        assert set(host.kernel.links) == {"asxingress000", "asxbackend000"}
        host.kernel.cannot_encrypt = ""
        assert await keys.look(), "it was installed meanwhile"


async def test_the_next_daemon_leaves_all_as_it_is(host: Host) -> None:
    """Its engine may be slow to say which networks it has: no link goes meanwhile."""
    said = wanted(web(target(11, "n1"), target(12, "n2")))
    async with host.running():
        host.network.want(said)
        await asyncio.sleep(1)
        assert host.kernel.links
    before = host.kernel.writes
    host.engine.latency = 2.0
    host.network = host.daemon()
    async with host.running():
        host.network.want(said)
        await asyncio.sleep(20)
    assert host.kernel.writes == before


async def test_networks_follow_the_smallest_wire_but_not_under_their_containers(host: Host) -> None:
    async with host.running():
        host.network.want(replace(wanted(), peers=[replace(p, mtu=9000) for p in PEERS]))
        await asyncio.sleep(1)

        def sizes() -> list[str]:
            return sorted(net["Options"]["com.docker.network.driver.mtu"] for net in host.engine.nets.values())

        assert sizes() == ["8950", "8950"]
        host.engine.images.add("i")
        inside = {"Image": "i", "NetworkingConfig": {"EndpointsConfig": {"backend": {}}}}
        await host.engine.start(await host.engine.create("c", inside))
        peers = [replace(p, mtu=9000 if p.node_id != "n3" else 1500) for p in PEERS]
        host.network.want(Wanted(rev=2, peers=peers))
        await asyncio.sleep(10)
        assert sizes() == ["1450", "8950"]
        assert host.kernel.links["asxbackend000"]["mtu"] == 8950


async def test_a_task_waits_a_moment_for_its_network(host: Host) -> None:
    async with host.running(), asyncio.TaskGroup() as group:
        preparing = group.create_task(host.network.prepare(task(11)))
        await asyncio.sleep(1)
        host.network.want(wanted())
        assert [name for name, _ in await preparing] == ["backend", "ingress"]
    with pytest.raises(EngineError, match=r"network elsewhere0+ not found"):
        await host.network.prepare(task(11, overlay("elsewhere", 9)))


async def test_the_hosts_own_namespace_gets_no_container_rules(host: Host) -> None:
    async with host.running():
        host.network.want(wanted(web(target(11, "n1"))))
        await host.network.started(Task(id="hostly"), 111)
        await asyncio.sleep(1)
        assert set(host.kernel.rulesets) == {None}


async def test_rules_of_containers_follow_and_end_with_them(host: Host) -> None:
    async with host.running():
        host.network.want(wanted(web(target(11, "n1"))))
        await host.network.started(task(11), 111)
        await host.network.started(task(12), 112)
        host.network.want(Wanted(rev=2, routes=[web(target(11, "n1"), target(12, "n1"))]))
        await asyncio.sleep(0.1)
        assert host.virtual(111) == host.virtual(112) == ["10.0.1.11", "10.0.1.12"]
        await host.network.stopped("t12")
        host.kernel.processes.discard(111)  # ended, and nobody has said so yet
        before = host.kernel.rulesets[112]
        host.network.want(Wanted(rev=3, routes=[web(target(12, "n1"))]))
        await asyncio.sleep(0.1)
        assert host.kernel.rulesets[112] == before
        assert host.network.applied == 3


async def test_a_silent_peer_is_avoided_within_a_second_and_back_as_fast(host: Host) -> None:
    async with host.running():
        host.network.want(wanted(web(target(11, "n1"), target(12, "n2"))))
        await host.network.started(task(11), 111)
        await asyncio.sleep(10)
        gone = frozenset({"10.0.0.12", "10.0.1.12"})
        assert host.published() == ["10.0.0.11", "10.0.0.12"]
        assert host.kernel.forgotten == []
        host.silent = {"n2"}
        await asyncio.sleep(silence.SILENT + 0.2)
        assert host.virtual() == ["10.0.1.11"]
        assert host.published() == ["10.0.0.11", "10.0.0.12"], "there, the kernel sees to it"
        assert host.kernel.forgotten == [], "it may be back in a moment"
        assert set(host.kernel.given_up) == {(None, gone), (111, gone)}, (
            "what nobody has answered can be given up at once"
        )
        await asyncio.sleep(silence.LOST - silence.SILENT)
        assert host.kernel.forgotten == [(None, gone), (111, gone)]
        often = len(host.kernel.given_up)
        await asyncio.sleep(silence.STALE)
        assert len(host.kernel.forgotten) == 2, "what is answered after that is answered by a host that is back"
        assert len(host.kernel.given_up) > often + 10, "what was being connected meanwhile is, again and again"
        often = len(host.kernel.given_up)
        host.silent = set()
        await asyncio.sleep(0.25)
        assert host.published() == ["10.0.0.11", "10.0.0.12"]
        assert host.virtual() == ["10.0.1.11", "10.0.1.12"]
        assert (len(host.kernel.forgotten), len(host.kernel.given_up)) == (2, often)
        host.silent = {"n2"}
        await asyncio.sleep(silence.LOST + 0.2)
        assert len(host.kernel.forgotten) == 4, "once each time"


async def test_a_blip_of_less_than_that_changes_nothing(host: Host) -> None:
    async with host.running():
        host.network.want(wanted(web(target(11, "n1"), target(12, "n2"))))
        await asyncio.sleep(10)
        writes = host.kernel.writes
        host.silent = {"n2"}
        await asyncio.sleep(silence.SILENT - 0.15)
        host.silent = set()
        await asyncio.sleep(10)
        assert host.kernel.writes == writes


async def test_when_everybody_is_silent_it_may_be_us(host: Host) -> None:
    async with host.running():
        host.network.want(wanted(web(target(12, "n2"), target(13, "n3"))))
        await host.network.started(task(11), 111)
        await asyncio.sleep(10)
        host.silent = {"n2", "n3"}
        await asyncio.sleep(2)
        assert host.virtual() == ["10.0.1.12", "10.0.1.13"], "rather any than none"
        assert host.kernel.forgotten == [], "established connections may live through it"


async def test_a_peer_that_was_never_heard_is_silent(host: Host) -> None:
    host.silent = {"n2"}
    async with host.running():
        host.network.want(wanted(web(target(11, "n1"), target(12, "n2"))))
        await host.network.started(task(11), 111)
        await asyncio.sleep(0.3)
        assert host.virtual() == ["10.0.1.11", "10.0.1.12"], "it was given no time yet"
        await asyncio.sleep(0.5)
        assert host.virtual() == ["10.0.1.11"]


async def test_flows_to_a_task_that_is_gone_are_forgotten(host: Host) -> None:
    async with host.running():
        host.network.want(wanted(web(target(11, "n1"), target(12, "n2"))))
        await host.network.started(task(11), 111)
        await asyncio.sleep(1)
        host.network.want(Wanted(rev=2, routes=[web(target(11, "n1"), replace(target(12, "n2"), ready=False))]))
        await asyncio.sleep(1)
        assert host.kernel.forgotten == [], "it may still be answering"
        gone = frozenset({"10.0.0.12", "10.0.1.12"})
        assert host.kernel.moved == [(None, gone), (111, gone)], "datagrams have no end to wait for"
        host.network.want(Wanted(rev=3, routes=[web(target(11, "n1"))]))
        await asyncio.sleep(1)
        gone = frozenset({"10.0.0.12", "10.0.1.12"})
        assert host.kernel.forgotten == [(None, gone), (111, gone)]
        assert len(host.kernel.moved) == 2


async def test_what_others_broke_is_repaired(host: Host) -> None:
    async with host.running():
        host.network.want(wanted(web(target(11, "n1"))))
        await asyncio.sleep(1)
        before = dict(host.kernel.rulesets), dict(host.kernel.links), host.engine_networks()
        host.kernel.rulesets.clear()
        host.kernel.links.clear()
        host.engine.nets.clear()
        await asyncio.sleep(network.REPAIR + 1)
        assert (dict(host.kernel.rulesets), dict(host.kernel.links), host.engine_networks()) == before
        assert set(host.network.repairs.done) >= {repair.RULES, repair.NETWORKS}


async def test_a_repair_is_counted_and_said_once_with_what_differed(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    async with host.running():
        host.network.want(wanted(web(target(11, "n1"))))
        await host.network.started(task(11), 111)
        await asyncio.sleep(10)
        host.network.want(Wanted(rev=2, routes=[web(target(11, "n1"), target(12, "n2"))]))
        await asyncio.sleep(10)
        repairs = host.network.repairs
        assert (repairs.done, repairs.last) == ({}, ""), "what is wanted anew is no repair"
        assert host.clock.now() - repairs.looked <= network.REPAIR
        del host.kernel.rulesets[111]
        host.kernel.links["asxbackend000"]["fdb"] = ()
        await asyncio.sleep(3 * network.REPAIR)
        assert repairs.done == {repair.RULES: 1, repair.FDB: 1}
        assert "task t11" in repairs.last
        assert len([r for r in caplog.records if "somebody else" in r.message]) == 2


async def test_what_is_heard_of_is_repaired_at_once(host: Host) -> None:
    async with host.running():
        host.network.want(wanted(web(target(11, "n1"))))
        await asyncio.sleep(network.REPAIR + 0.1)
        for _ in range(2):
            host.kernel.rulesets.clear()
            host.kernel.links.clear()
            host.kernel.disturbed.set()
            await asyncio.sleep(0.3)
            assert host.published() == ["10.0.0.11"]
            assert len(host.kernel.links) == 2


async def test_what_failed_of_a_network_that_is_gone_fails_no_more(host: Host) -> None:
    async with host.running():
        host.network.want(wanted())
        await asyncio.sleep(1)
        host.engine.disconnect()
        await asyncio.sleep(10)
        assert "network backend" in host.network.repairs.failing
        host.engine.boot()
        host.network.want(wanted(rev=2, networks=(INGRESS,)))
        await asyncio.sleep(network.REPAIR + 1)
        assert host.network.repairs.failing == {}


async def test_what_cannot_be_repaired_is_counted(host: Host) -> None:
    async with host.running():
        host.network.want(wanted(web(target(11, "n1"))))
        await asyncio.sleep(1)
        host.kernel.broken = "no such luck"
        await asyncio.sleep(20)
        repairs = host.network.repairs
        assert repairs.failing["links"] == "no such luck"
        assert repairs.failures[repair.LINKS] > 1
        assert host.clock.now() - repairs.looked > 15


async def test_an_engine_that_is_away_does_not_stop_the_routing(host: Host) -> None:
    async with host.running():
        host.network.want(wanted(web(target(11, "n1"))))
        await asyncio.sleep(1)
        host.engine.disconnect()
        host.network.want(wanted(web(target(11, "n1"), target(12, "n2")), rev=2))
        await asyncio.sleep(1)
        assert host.published() == ["10.0.0.11", "10.0.0.12"]
        assert host.network.applied == 2


async def test_a_kernel_that_refuses_is_asked_again(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    async with host.running():
        host.kernel.broken = "no such luck"
        host.network.want(wanted(web(target(11, "n1"))))
        await asyncio.sleep(30)
        assert host.network.applied == 0
        said = [r.message for r in caplog.records if "no such luck" in r.message]
        assert sorted(said) == [
            "encryption: no such luck",
            "links: no such luck",
            "rules: no such luck",
            "ways back: no such luck",
        ], "once, not at every try"
        host.kernel.broken = ""
        await asyncio.sleep(network.REPAIR + 1)
        assert host.published() == ["10.0.0.11"]
        assert host.network.applied == 1


async def test_networks_come_and_go(host: Host) -> None:
    async with host.running():
        host.network.want(wanted())
        await asyncio.sleep(1)
        kept = {n["Name"]: n["Id"] for n in host.engine.nets.values()}["ingress"]
        host.engine.nets["foreign"] = {"Id": "foreign", "Name": "bridge", "Labels": {}}
        host.network.want(wanted(rev=2, networks=(INGRESS,)))
        await asyncio.sleep(1)
        assert {n["Name"]: n["Id"] for n in host.engine.nets.values()} == {"ingress": kept, "bridge": "foreign"}
        assert sorted(host.kernel.links) == ["asxingress000"]


async def test_networks_are_adopted_or_replaced(host: Host) -> None:
    async with host.running():
        host.network.want(wanted())
        await asyncio.sleep(1)
    before = {n["Name"]: n["Id"] for n in host.engine.nets.values()}
    host.network = host.daemon()
    again = replace(BACKEND, id=f"{'again':0<25}")  # `docker stack rm` and `deploy`
    async with host.running():
        host.network.want(wanted(rev=2, networks=(INGRESS, again)))
        await asyncio.sleep(1)
        after = {n["Name"]: n["Id"] for n in host.engine.nets.values()}
        assert after["ingress"] == before["ingress"]
        assert after["backend"] != before["backend"]
        assert host.engine_networks()["backend"] == again.id


async def test_a_network_in_use_is_waited_for(host: Host) -> None:
    host.engine.images.add("i")
    again = replace(BACKEND, id=f"{'again':0<25}")
    async with host.running():
        host.network.want(wanted())
        await asyncio.sleep(1)
        old = await host.engine.create("old", {"Image": "i", "NetworkingConfig": {"EndpointsConfig": {"backend": {}}}})
        await host.engine.start(old)
        host.network.want(wanted(rev=2, networks=(INGRESS, again)))
        async with asyncio.TaskGroup() as group:
            preparing = group.create_task(host.network.prepare(task(11, again)))
            await asyncio.sleep(5)
            assert not preparing.done()
            await host.engine.kill(old)
            await preparing
        assert host.engine_networks()["backend"] == again.id


async def test_a_network_that_stays_in_use_is_said_to(host: Host) -> None:
    host.engine.images.add("i")
    again = replace(BACKEND, id=f"{'again':0<25}")
    host.network.want(wanted())
    await host.network.prepare(task(11))
    old = await host.engine.create("old", {"Image": "i", "NetworkingConfig": {"EndpointsConfig": {"backend": {}}}})
    await host.engine.start(old)
    host.network.want(wanted(rev=2, networks=(INGRESS, again)))
    before = host.clock.now()
    with pytest.raises(EngineError, match="network backend of before is still in use"):
        await host.network.prepare(task(11, again))
    assert host.clock.now() - before >= bridges.PATIENCE


async def test_names_follow_their_rules(host: Host) -> None:
    async with host.running():
        host.network.want(wanted(web(target(11, "n1"))))
        assert host.named == []
        await asyncio.sleep(1)
        zone, addresses, rules = host.named[0]
        assert zone.networks[BACKEND.id].names["web"] == ("10.0.1.2",)
        assert zone.askers["10.0.1.11"].outside
        assert addresses == ["10.0.0.251", "10.0.1.251"]
        assert rules == ["10.0.0.11"], "they were in place when it was told"


async def test_guests_wait_for_their_rules(host: Host) -> None:
    at = Attachment(network_id=BACKEND.id, address="10.0.1.60/24")
    guest = Guest(id="g", node_id="n1", attachment=at, container_id="c", running=True)
    async with host.running():
        host.network.want(replace(wanted(), guests=[guest]))
        assert host.held == {"10.0.1.60"}
        await host.network.started(as_tasks([guest])[0], 111, redirect=("192.0.2.1",))
        assert host.held == set()
        await host.network.stopped("c")
        assert host.held == {"10.0.1.60"}


async def test_a_guest_with_another_way_out_may_ask_others(host: Host) -> None:
    inner = replace(BACKEND, spec=replace(BACKEND.spec, internal=True))
    at = Attachment(network_id=BACKEND.id, address="10.0.1.60/24")
    guest = Guest(id="g", node_id="n1", attachment=at, container_id="c", running=True)
    async with host.running():
        host.network.want(replace(wanted(networks=(INGRESS, inner)), guests=[guest]))
        await asyncio.sleep(1)
        assert not host.named[-1][0].askers["10.0.1.60"].outside
        host.network.reach_out(["c"])
        await asyncio.sleep(1)
        assert host.named[-1][0].askers["10.0.1.60"].outside


async def test_leaving_takes_everything_away(host: Host) -> None:
    async with host.running():
        host.network.want(wanted(web(target(11, "n1"))))
        await asyncio.sleep(1)
    await host.network.clear()
    assert host.kernel.rulesets[None] == NOTHING.full()
    assert host.kernel.links == {}
    assert host.engine.nets == {}
