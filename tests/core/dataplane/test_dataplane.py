"""What a host's kernel should hold: examples that a reader can check, and properties of all inputs."""

from __future__ import annotations

import random
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from afterswarm.core.dataplane import bridge, diff, mesh, paths, vxlan
from afterswarm.core.dataplane.container_rules import container as container_rules
from afterswarm.core.dataplane.host_rules import host as host_rules
from afterswarm.core.dataplane.ruleset import NOTHING
from afterswarm.core.dataplane.targets import choose, rotate
from afterswarm.model.network import LABEL, Network, NetworkSpec
from afterswarm.model.service import PortConfig
from afterswarm.model.session import Peer, Route, Target

NODES = ["n1", "n2", "n3"]
INGRESS = Network(
    id="ingress000000000000000000",
    spec=NetworkSpec(name="ingress", ingress=True),
    subnet="10.0.0.0/24",
    vni=4096,
    gateways={"n1": "10.0.0.251", "n2": "10.0.0.252", "n3": "10.0.0.253"},
)
BACKEND = Network(
    id="backend000000000000000000",
    spec=NetworkSpec(name="backend"),
    subnet="10.0.1.0/24",
    vni=4097,
    gateways={"n1": "10.0.1.251", "n2": "10.0.1.252", "n3": "10.0.1.253"},
)
NETWORKS = [INGRESS, BACKEND]
PEERS = [Peer(node_id=n, address=f"10.77.0.{i}", returns=True) for i, n in enumerate(NODES, start=1)]
ALL = {INGRESS.id: "10.0.0.9", BACKEND.id: "10.0.1.9"}


def target(number: int, node: str, *, ready: bool = True, draining: bool = False) -> Target:
    addresses = {INGRESS.id: f"10.0.0.{number}", BACKEND.id: f"10.0.1.{number}"}
    name = f"web.{number}.t{number}"
    return Target(
        task_id=f"t{number}", node_id=node, name=name, slot=number, addresses=addresses, ready=ready, draining=draining
    )


def web(*targets: Target, service_id: str = "web", published: int = 8080, vip: str = "10.0.1.2") -> Route:
    ports = [PortConfig(target_port=80, published_port=published)] if published else []
    return Route(service_id=service_id, name=service_id, vips={BACKEND.id: vip}, ports=ports, targets=list(targets))


def host(*routes: Route, node: str = "n1", silent: tuple[str, ...] = ()) -> str:
    return host_rules(node_id=node, networks=NETWORKS, routes=routes, peers=PEERS, silent=silent).full()


def container(*routes: Route, silent: tuple[str, ...] = (), attached: dict[str, str] = ALL) -> str:
    return container_rules(task_id="t", attached=attached, networks=NETWORKS, routes=routes, silent=silent).full()


def chain(ruleset: str, name: str) -> list[str]:
    found = re.search(rf"\tchain {name} {{\n(.*?)\t}}\n", ruleset, re.DOTALL)
    assert found, f"no chain {name}"
    return [line.strip() for line in found[1].splitlines()]


def ring(rule: str) -> list[str]:
    return re.findall(r"\d+ : ([0-9.]+)", rule)


# ---- targets -----------------------------------------------------------------------------------------------------

READY, SILENT_ONE = target(11, "n1"), target(12, "n2")
DRAINING, STARTING = target(13, "n1", draining=True), target(14, "n1", ready=False)


@pytest.mark.parametrize(
    ("targets", "chosen"),
    [
        ([READY, SILENT_ONE, DRAINING, STARTING], [READY]),
        ([SILENT_ONE, DRAINING, STARTING], [SILENT_ONE]),
        ([DRAINING, STARTING], [DRAINING]),
        ([STARTING], []),
        ([], []),
    ],
)
def test_the_best_targets_there_are(targets: list[Target], chosen: list[Target]) -> None:
    assert choose(targets, BACKEND.id, {"n2"}) == chosen


def test_a_target_of_another_network_is_no_target() -> None:
    assert choose([replace(READY, addresses={"other": "10.9.0.1"})], BACKEND.id, ()) == []


def test_targets_are_in_order_of_their_addresses_as_numbers() -> None:
    nine, ten = target(9, "n1"), target(10, "n1")
    assert choose([ten, nine], BACKEND.id, ()) == [nine, ten]


@given(st.lists(st.integers(3, 250), unique=True), st.text())
def test_a_ring_from_another_start_is_the_same_ring(numbers: list[int], seed: str) -> None:
    targets = [target(n, "n1") for n in numbers]
    turned = rotate(targets, seed)
    doubled = targets + targets
    assert any(doubled[i : i + len(targets)] == turned for i in range(max(len(targets), 1)))


# ---- rulesets ----------------------------------------------------------------------------------------------------


def ends(text: str, port: str = "tcp . 8080") -> list[str]:
    """Where the connections to a published port may go."""
    slots = dict(e.split(" : ") for e in elements(text, "slots") if e.startswith(f"{port} . "))
    there = dict(e.split(" : ") for e in elements(text, "endpoints"))
    assert list(slots) == [f"{port} . {i}" for i in range(len(slots))], "a hole would drop connections"
    return [there[f"{port} . {mark}"] for mark in slots.values()]


def verdict(text: str, port: str = "tcp . 8080") -> str:
    return dict(e.split(" : ") for e in elements(text, "published"))[port]


def test_a_published_port_goes_to_every_ready_target() -> None:
    text = host(web(target(11, "n1"), target(12, "n2"), target(13, "n3", ready=False)))
    assert sorted(ends(text)) == ["10.0.0.11 . 80", "10.0.0.12 . 80"]
    name = verdict(text).removeprefix("goto ")
    assert chain(text, name) == ["meta mark set numgen inc mod 2", "jump try", "goto again_2"]
    alone = host(web(target(11, "n1")))
    assert (verdict(alone), ends(alone)) == ("goto only", ["10.0.0.11 . 80"])


def test_a_mark_names_the_host_of_its_endpoint() -> None:
    text = host(web(target(11, "n1"), target(12, "n2")))
    marks = {int(e.split(" : ")[1], 0) & ~mesh.SLOT for e in elements(text, "slots")}
    second = int(dict(e.split(" : ") for e in elements(text, "beats"))["10.77.0.2"], 0)
    assert marks == {mesh.OWN, second}
    assert elements(text, "beats") == ["10.77.0.2 : 0xa03f0000", "10.77.0.3 : 0xa03f4000"]


@given(st.sets(st.integers(1, 0x3FFE), min_size=2))
def test_hosts_marks_differ(places: set[int]) -> None:
    marks = {mesh.mark(place) for place in places}
    assert len(marks) == len(places)
    assert all(mark & mesh.TAGGED == mesh.TAG and not mark & mesh.SLOT and mark != mesh.OWN for mark in marks)


def elements(text: str, name: str) -> list[str]:
    found = re.search(rf"^add element inet afterswarm {name} {{ (.*) }}$", text, re.MULTILINE)
    return found[1].split(", ") if found else []


def test_the_client_is_hidden_only_where_the_answer_would_not_come_back() -> None:
    """On hosts that do not send answers back the way they came, for services that ask, and from the target's host."""
    peers = [replace(p, returns=p.node_id == "n2") for p in PEERS]
    route = web(target(11, "n1"), target(12, "n2"), target(13, "n3"))

    def around(*routes: Route) -> list[str]:
        return elements(host_rules(node_id="n1", networks=NETWORKS, routes=routes, peers=peers).full(), "around")

    assert around(route) == ["10.0.0.13"]
    assert around(replace(route, masquerade=True)) == ["10.0.0.12", "10.0.0.13"]
    assert elements(host(route), "own") == ["10.77.0.2 . 10.0.0.12", "10.77.0.3 . 10.0.0.13"]


def test_each_other_host_has_a_way_back_of_its_own() -> None:
    found = paths.returns(NETWORKS, "n1")
    assert found == [
        paths.Return(mark=0x5A0000FC, source="10.0.0.0/24", gateway="10.0.0.252", device="aswingress000"),
        paths.Return(mark=0x5A0000FD, source="10.0.0.0/24", gateway="10.0.0.253", device="aswingress000"),
    ]
    assert elements(host(web()), "entry") == ["02:af:0a:00:00:fc : 0x5a0000fc", "02:af:0a:00:00:fd : 0x5a0000fd"]


def test_datagrams_reach_the_address_that_a_container_answers_from() -> None:
    text = container_rules(task_id="t", attached=ALL, networks=NETWORKS, routes=[], source="10.0.1.9").full()
    assert "ip daddr 10.0.0.9 meta l4proto udp dnat ip to 10.0.1.9" in chain(text, "prerouting")
    same = container_rules(task_id="t", attached=ALL, networks=NETWORKS, routes=[], source="10.0.0.9").full()
    assert "dnat" not in same


def test_a_silent_host_gets_nothing_new_until_it_is_all_there_is() -> None:
    both, only = web(target(11, "n1"), target(12, "n2")), web(target(12, "n2"))
    assert ring(chain(container(both, silent=("n2",)), "vip_10_0_1_2")[0]) == ["10.0.1.11"]
    assert ring(chain(container(only, silent=("n2",)), "vip_10_0_1_2")[0]) == ["10.0.1.12"]


def test_on_a_host_the_kernel_knows_who_is_silent() -> None:
    """Not the rules: only what is alive when they begin depends on who has been heard."""
    both = web(target(11, "n1"), target(12, "n2"))
    heard, silent = host(both), host(both, silent=("n2",))
    assert elements(heard, "alive") == ["0xa03f0000", "0xa03f4000"]
    assert elements(silent, "alive") == ["0xa03f4000"]
    assert [x for x in heard.splitlines() if " alive " not in x] == [
        x for x in silent.splitlines() if " alive " not in x
    ]


def test_nobody_ready_is_a_refusal() -> None:
    nobody = web(target(11, "n1", ready=False))
    assert verdict(host(nobody)) == "goto refuse"
    assert "10.0.1.2 : goto refuse" in container(nobody)
    for text, tracked in ((host(nobody), ""), (container(nobody), "ct state new ")):
        assert chain(text, "refuse") == [f"{tracked}meta l4proto tcp reject with tcp reset", "reject"]


def test_host_mode_is_the_engines_business() -> None:
    route = replace(web(target(11, "n1")), ports=[PortConfig(published_port=8080, publish_mode="host")])
    assert "8080" not in host(route)


def test_a_host_that_is_not_in_the_ingress_network_publishes_nothing() -> None:
    networks = [replace(INGRESS, gateways={}), BACKEND]
    text = host_rules(node_id="n1", networks=networks, routes=[web(target(11, "n1"))], peers=PEERS).full()
    assert "8080" not in text
    assert "dnat" not in text
    nowhere = host_rules(node_id="n1", networks=[], routes=[web(target(11, "n1"))], peers=PEERS)
    assert nowhere is NOTHING


def test_tunnels_are_open_to_the_swarms_hosts_only() -> None:
    peers = [*PEERS[:2], replace(PEERS[2], data_path="10.88.0.3")]
    text = host_rules(node_id="n1", networks=NETWORKS, routes=[], peers=peers, tunnel_port=7788).full()
    assert chain(text, "tunnel")[-1] == "udp dport 7788 ip saddr != @hosts drop"
    assert elements(text, "hosts") == ["10.77.0.1", "10.77.0.2", "10.88.0.3"]
    without_ingress = host_rules(node_id="n1", networks=[BACKEND], routes=[], peers=peers, tunnel_port=7788)
    assert chain(without_ingress.full(), "tunnel") == chain(text, "tunnel")


def test_names_are_asked_for_whatever_is_published() -> None:
    first, second = chain(host(web(target(11, "n1"), published=53)), "mesh")
    assert first == "ip daddr @gateways meta l4proto { tcp, udp } th dport 53 return"
    assert second.endswith("vmap @published")


def test_a_container_has_the_virtual_addresses_of_its_own_networks() -> None:
    inside, outside = web(target(11, "n1")), web(target(12, "n1"), service_id="other", vip="10.0.9.2")
    outside = replace(outside, vips={"elsewhere": "10.0.9.2", INGRESS.id: "10.0.0.2"})
    text = container(inside, outside)
    assert "10.0.1.2 : goto vip_10_0_1_2" in text
    assert "10.0.9.2" not in text
    assert "10.0.0.2" not in text
    assert "vip_" not in container(inside, attached={INGRESS.id: "10.0.0.9"})


def test_a_service_without_virtual_address_has_no_rule() -> None:
    assert "vip_" not in container(replace(web(target(11, "n1")), mode="dnsrr", vips={}))


def test_containers_begin_at_different_targets() -> None:
    route = web(*(target(n, "n1") for n in range(11, 19)))
    firsts = {
        ring(container_rules(task_id=str(n), attached=ALL, networks=NETWORKS, routes=[route]).full())[0]
        for n in range(40)
    }
    assert len(firsts) > 4


targets = st.builds(
    target,
    st.integers(11, 60),
    st.sampled_from(NODES),
    ready=st.booleans(),
    draining=st.booleans(),
)
routes = st.lists(
    st.builds(
        lambda found, number: web(
            *found, service_id=f"s{number}", published=number and 8000 + number, vip=f"10.0.1.{200 + number}"
        ),
        st.lists(targets, max_size=5, unique_by=lambda t: t.task_id),
        st.integers(0, 20),
    ),
    max_size=4,
    unique_by=lambda r: r.service_id,
)
silences = st.sets(st.sampled_from(NODES))


@given(routes, silences, st.randoms(use_true_random=False))
def test_the_order_of_objects_does_not_matter(found: list[Route], silent: set[str], rng: random.Random) -> None:
    mixed = [replace(r, targets=rng.sample(r.targets, len(r.targets))) for r in rng.sample(found, len(found))]
    networks, peers = rng.sample(NETWORKS, 2), rng.sample(PEERS, 3)
    given: list[dict[str, Any]] = [
        {"networks": NETWORKS, "routes": found, "peers": PEERS, "silent": silent},
        {"networks": networks, "routes": mixed, "peers": peers, "silent": set(silent)},
    ]
    one, other = (host_rules(node_id="n1", **each).full() for each in given)
    assert one == other
    for each in given:
        each.pop("peers")
    one, other = (container_rules(task_id="t", attached=ALL, **each).full() for each in given)
    assert one == other
    assert vxlan.links(node_id="n1", networks=NETWORKS, routes=found, peers=PEERS) == vxlan.links(
        node_id="n1", networks=networks, routes=mixed, peers=peers
    )


@given(routes, silences)
def test_nothing_that_is_not_running_is_ever_a_target(found: list[Route], silent: set[str]) -> None:
    running = {a for r in found for t in r.targets if t.ready or t.draining for a in t.addresses.values()}
    assert set(ring(container(*found, silent=tuple(silent)))) <= running
    text = host(*found, silent=tuple(silent))
    assert {e.split(" : ")[1].removesuffix(" . 80") for e in elements(text, "endpoints")} <= running


@given(routes, silences)
def test_every_map_is_whole(found: list[Route], silent: set[str]) -> None:
    """As many targets as the counter counts, numbered from 0: a hole would drop connections."""
    for count, inside in re.findall(r"mod (\d+) map \{ (.*?) \}", container(*found, silent=tuple(silent))):
        numbers = [int(part.split(" : ")[0]) for part in inside.split(", ")]
        assert numbers == list(range(int(count)))
    text = host(*found)
    for port in (e.split(" : ")[0] for e in elements(text, "published")):
        way, count = verdict(text, port).removeprefix("goto "), len(ends(text, port))
        if count > 1:
            assert chain(text, way)[0] == f"meta mark set numgen inc mod {count}"
        else:
            assert way == ("only" if count else "refuse")


# ---- links -------------------------------------------------------------------------------------------------------


def links(*found: Route, node: str = "n1", networks: list[Network] = NETWORKS) -> list[vxlan.Link]:
    return vxlan.links(node_id=node, networks=networks, routes=found, peers=PEERS)


def test_a_link_knows_where_everybody_is() -> None:
    [backend, ingress] = links(web(target(11, "n1"), target(12, "n2")))
    assert backend == vxlan.Link(
        name="asxbackend000",
        vni=4097,
        local="10.77.0.1",
        bridge="aswbackend000",
        bridge_mac="02:af:0a:00:01:fb",
        mtu=1450,
        fdb=(
            ("00:00:00:00:00:00", "10.77.0.2"),
            ("00:00:00:00:00:00", "10.77.0.3"),
            ("02:42:0a:00:01:0c", "10.77.0.2"),
            ("02:af:0a:00:01:fc", "10.77.0.2"),
            ("02:af:0a:00:01:fd", "10.77.0.3"),
        ),
        addresses=("10.0.1.251/24",),
    )
    assert ingress.ingress


def test_packets_go_by_the_data_path() -> None:
    peers = [replace(p, data_path=p.address.replace("77", "88")) for p in PEERS]
    [link] = vxlan.links(node_id="n1", networks=[BACKEND], routes=[], peers=peers)
    assert link.local == "10.88.0.1"
    assert {where for _, where in link.fdb} == {"10.88.0.2", "10.88.0.3"}


def test_of_two_tasks_with_one_address_the_ready_one_has_it() -> None:
    old, new = target(12, "n2", ready=False), replace(target(12, "n3"), task_id="a")
    for order in ([old, new], [new, old]):
        [link] = links(web(*order), networks=[BACKEND])
        assert ("02:42:0a:00:01:0c", "10.77.0.3") in link.fdb
        assert ("02:42:0a:00:01:0c", "10.77.0.2") not in link.fdb


def test_no_link_before_a_host_knows_itself() -> None:
    assert vxlan.links(node_id="n1", networks=NETWORKS, routes=[], peers=PEERS[1:]) == []
    assert links(node="n9") == []


@given(routes)
def test_a_unicast_address_is_in_one_place(found: list[Route]) -> None:
    for link in links(*found):
        unicast = [mac for mac, _ in link.fdb if mac != vxlan.EVERYBODY]
        assert len(unicast) == len(set(unicast))
        assert len(link.name) <= 15
        assert len(link.bridge) <= 15


# ---- diff --------------------------------------------------------------------------------------------------------


def carried_out(actual: list[vxlan.Link], steps: list[diff.Step]) -> list[vxlan.Link]:
    """What a kernel makes of the steps, refusing what a kernel refuses."""
    there = {link.name: link for link in actual}
    for step in steps:
        match step:
            case diff.Delete(name):
                del there[name]
            case diff.Create(link):
                assert link.name not in there
                assert link.vni not in {other.vni for other in there.values()}
                there[link.name] = replace(link, fdb=())
            case diff.Adjust(link):
                there[link.name] = replace(link, fdb=there[link.name].fdb)
            case diff.Learn(name, mac, where):
                known = dict(there[name].fdb)
                assert mac == vxlan.EVERYBODY or mac not in known
                there[name] = replace(there[name], fdb=tuple(sorted([*there[name].fdb, (mac, where)])))
            case diff.Unlearn(name, mac, where):
                assert (mac, where) in there[name].fdb
                there[name] = replace(there[name], fdb=tuple(x for x in there[name].fdb if x != (mac, where)))
    return sorted(there.values(), key=lambda link: link.name)


some_links = st.lists(
    st.builds(
        lambda number, vni, local, mtu, fdb: vxlan.Link(
            name=f"asx{number}",
            vni=vni,
            local=local,
            bridge=f"asw{number}",
            bridge_mac="02:af:00:00:00:01",
            mtu=mtu,
            fdb=tuple(sorted({**fdb}.items())),
        ),
        st.integers(1, 4),
        st.integers(1, 6),
        st.sampled_from(["10.77.0.1", "10.77.0.9"]),
        st.sampled_from([1450, 8950]),
        st.dictionaries(st.sampled_from(["02:42:00:00:00:01", "02:42:00:00:00:02"]), st.sampled_from(["h2", "h3"])),
    ),
    unique_by=(lambda link: link.name, lambda link: link.vni),
)


@given(some_links, some_links)
def test_the_steps_lead_there_and_then_there_are_none(actual: list[vxlan.Link], wanted: list[vxlan.Link]) -> None:
    after = carried_out(actual, diff.steps(actual, wanted))
    assert after == sorted(wanted, key=lambda link: link.name)
    assert diff.steps(after, wanted) == []


@given(some_links, some_links, st.integers(0, 20))
def test_after_an_interruption_the_rest_leads_there(
    actual: list[vxlan.Link], wanted: list[vxlan.Link], done: int
) -> None:
    between = carried_out(actual, diff.steps(actual, wanted)[:done])
    assert carried_out(between, diff.steps(between, wanted)) == sorted(wanted, key=lambda link: link.name)


def test_one_new_container_is_one_entry() -> None:
    before, after = links(web()), links(web(target(12, "n2")))
    assert diff.steps(before, after) == [
        diff.Learn("asxbackend000", "02:42:0a:00:01:0c", "10.77.0.2"),
        diff.Learn("asxingress000", "02:42:0a:00:00:0c", "10.77.0.2"),
    ]


# ---- the engine's network ----------------------------------------------------------------------------------------


def test_the_engines_network_is_recognized() -> None:
    wanted = bridge.body(BACKEND, "10.0.1.251", 1450)
    shown = {**wanted, "Id": "x", "Scope": "local"}
    assert bridge.fits(shown, wanted)
    for field, value in {
        "Name": "front",
        "Internal": True,
        "IPAM": {"Config": [{"Subnet": "10.0.1.0/24", "Gateway": "10.0.1.252"}]},
        "Options": {},
        "Labels": {LABEL: "other"},
    }.items():
        assert not bridge.fits({**shown, field: value}, wanted), field


def test_what_is_in_the_way_of_a_new_network() -> None:
    wanted = bridge.body(BACKEND, "10.0.1.251", 1450)
    again = bridge.body(replace(BACKEND, id="again000000", subnet="10.0.7.0/24"), "10.0.7.251", 1450)
    overlapping = bridge.body(
        replace(BACKEND, id="other000000", subnet="10.0.1.128/25", spec=NetworkSpec(name="other")), "10.0.1.251", 1450
    )
    apart = bridge.body(INGRESS, "10.0.0.251", 1450)
    assert [bridge.in_the_way(found, wanted) for found in (wanted, again, overlapping, apart)] == [
        True,
        True,
        True,
        False,
    ]


def test_links_are_plain_values_on_the_wire() -> None:
    found = links(web(target(12, "n2")))
    assert [msgspec.convert(msgspec.to_builtins(link), vxlan.Link) for link in found] == found
