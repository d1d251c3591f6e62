"""Who is alive, as the kernel knows it, and changes of its rules: on real kernels, with packets that nobody answers."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import kernel_lab as net
import pytest
from msgspec.structs import replace

from afterswarm.core.dataplane import host_rules, mesh
from afterswarm.core.dataplane.ruleset import NOTHING, TABLE, Part, Ruleset
from afterswarm.model.service import PortConfig
from afterswarm.model.session import Route

pytestmark = [pytest.mark.real, pytest.mark.skipif(not net.is_root(), reason="needs root")]

WEB = net.web(*(net.target(number, f"n{1 + number % 3}") for number in range(1, 7)))
OF = {t.addresses[net.INGRESS.id]: t.node_id for t in WEB.targets}
SEEN = """
table ip seen
delete table ip seen
table ip seen {
    set ends { type ipv4_addr; flags dynamic; counter; size 100; }
    chain forwarded {
        type filter hook forward priority -10
        udp dport 80 update @ends { ip daddr }
        udp dport 80 meta mark != 0 counter
    }
}"""
SURE = mesh.ALIVE / 1000 + 0.1  # seconds after which a host is not alive without a beat


def rules(*routes: Route, before: Ruleset = NOTHING) -> Ruleset:
    return host_rules.host(node_id="n1", networks=net.NETWORKS, routes=routes, peers=net.PEERS, before=before)


@pytest.fixture(scope="module")
def lab() -> Iterator[Any]:
    made = net.Lab()
    yield made
    made.close()


@pytest.fixture
async def n1(lab: Any) -> Any:
    """The host that is dialled, with rules for six endpoints on three hosts, all of which are heard."""
    lab.mute.clear()
    await lab.kernels["n1"].apply(NOTHING)
    await lab.kernels["n1"].apply(rules(WEB))
    for peer in ("n2", "n3"):
        await lab.heard("n1", peer)
    return lab.hosts["n1"]


def picks(lab: Any, number: int = 60) -> Counter[str]:
    """Where so many new flows of datagrams are led, by endpoint. None of them may bear a mark then."""
    host = lab.hosts["n1"]
    host.run("conntrack", "-F")
    host.run("nft", "-f", "-", stdin=SEEN)
    sockets = [lab.outside.socket(net.socket.SOCK_DGRAM) for _ in range(number)]
    try:
        for each in sockets:
            each.sendto(b"?", ("10.177.0.1", 8080))
        found = host.run("nft", "list", "table", "ip", "seen")
    finally:
        for each in sockets:
            each.close()
    assert "counter packets 0 " in found.partition("chain")[2], "the choice is to be seen in a mark"
    return Counter({a: int(count) for a, count in re.findall(r"(10\.200[\d.]+) counter packets (\d+)", found)})


def nodes(found: Counter[str]) -> set[str]:
    return {OF[address] for address in found}


@pytest.mark.usefixtures("n1")
async def test_connections_are_spread_evenly(lab: Any) -> None:
    assert picks(lab) == dict.fromkeys(OF, 10)


@pytest.mark.usefixtures("n1")
async def test_a_host_that_does_not_beat_is_not_chosen(lab: Any) -> None:
    """Nobody tells the kernel: no program of ours runs while this happens."""
    lab.mute.add("n2")
    await asyncio.sleep(SURE)
    found = picks(lab)
    assert nodes(found) == {"n1", "n3"}
    assert sum(found.values()) == 60
    assert min(found.values()) > 3, "what was its share goes to all others"
    lab.mute.clear()
    await lab.heard("n1", "n2")
    assert picks(lab) == dict.fromkeys(OF, 10)


@pytest.mark.usefixtures("n1")
async def test_with_all_others_silent_the_own_tasks_are_chosen_and_else_any(lab: Any) -> None:
    lab.mute |= {"n2", "n3"}
    await asyncio.sleep(SURE)
    found = picks(lab)
    assert nodes(found) == {"n1"}
    assert sum(found.values()) == 60
    elsewhere = replace(WEB, targets=[t for t in WEB.targets if t.node_id != "n1"])
    await lab.kernels["n1"].apply(rules(elsewhere))
    found = picks(lab)
    assert nodes(found) == {"n2", "n3"}, "to be wrong about who is alive loses nothing"
    assert sum(found.values()) == 60
    await lab.kernels["n1"].apply(rules(replace(WEB, targets=elsewhere.targets[:1])))
    assert sum(picks(lab).values()) == 60


async def test_beats_of_strangers_count_for_nothing(lab: Any, n1: Any) -> None:
    lab.mute |= {"n2", "n3"}
    await asyncio.sleep(SURE)
    with lab.outside.socket(net.socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"beat", ("10.177.0.1", net.BEATS))
    assert not alive(n1)
    assert nodes(picks(lab)) == {"n1"}


async def test_rules_that_are_written_anew_begin_with_everybody_alive(lab: Any, n1: Any) -> None:
    lab.mute |= {"n2", "n3"}
    await asyncio.sleep(SURE)
    assert not alive(n1)
    await lab.kernels["n1"].apply(NOTHING)
    await lab.kernels["n1"].apply(rules(WEB))
    assert len(alive(n1)) == 2


async def test_a_change_leaves_alone_who_is_alive(lab: Any, n1: Any) -> None:
    lab.mute.add("n2")
    await asyncio.sleep(SURE)
    there, table = alive(n1), handle(n1)
    await lab.kernels["n1"].apply(rules(replace(WEB, targets=WEB.targets[1:])))
    assert handle(n1) == table, "it was no change"
    assert alive(n1) == there
    assert nodes(picks(lab)) == {"n1", "n3"}


async def test_changes_lead_where_writing_anew_leads(lab: Any, n1: Any) -> None:
    rng = random.Random(1)  # noqa: S311 - the same each time
    other = net.Namespace()
    kernel = net.HostKernel(other)
    try:
        table = handle(n1)
        for _ in range(25):
            found = [some(number, rng) for number in rng.sample(range(5), rng.randint(0, 4))]
            assert await lab.kernels["n1"].apply(rules(*found)) == []
            assert handle(n1) == table, "it was no change"
            await kernel.apply(NOTHING)
            await kernel.apply(rules(*found))
            assert net.rules(n1, "table", *TABLE.split()) == net.rules(other, "table", *TABLE.split())
    finally:
        kernel.close()
        other.close()


def some(number: int, rng: random.Random) -> Route:
    targets = [
        net.target(20 + 10 * number + n, f"n{rng.randint(1, 3)}", ready=rng.random() < 0.8)
        for n in range(rng.randint(0, 4))
    ]
    ports = [PortConfig(protocol=p, target_port=80, published_port=8000 + number) for p in ("tcp", "udp")]
    places = {f"tcp/{8000 + number}": ["10.177.0.1"]} if rng.random() < 0.3 else {}
    masquerade = rng.random() < 0.3
    return Route(service_id=f"s{number}", ports=ports, targets=targets, masquerade=masquerade, published_on=places)


async def test_a_change_that_the_kernel_refuses_is_followed_by_all(lab: Any, n1: Any) -> None:
    """Here it is about an element that somebody has taken away, and nobody has looked yet."""
    old = rules(WEB)
    damaged = replace(old, parts={**old.parts, "x": Part(elements={"slots": {"tcp . 1 . 0": "0x1"}})})
    await lab.kernels["n1"].apply(damaged)
    n1.run("nft", "delete", "element", *TABLE.split(), "slots", "{ tcp . 1 . 0 }")
    await lab.kernels["n1"].apply(rules(replace(WEB, targets=WEB.targets[:2])))
    assert sum(picks(lab).values()) == 60


def handle(where: Any) -> str:
    """Of our table: another one was written anew."""
    return re.findall(rf"table {TABLE} .*handle (\d+)", where.run("nft", "-a", "list", "table", *TABLE.split()))[0]


def alive(where: Any) -> set[str]:
    shown = where.run("nft", "list", "set", *TABLE.split(), "alive").partition("elements")[2]
    return set(re.findall(r"0x\w+", shown))
