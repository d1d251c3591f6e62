"""From one ruleset to another: what a kernel makes of the change is what it would make of the whole.

`Kernel` takes transactions as the kernel does and refuses what the kernel refuses; `tests/contract/test_alive.py` shows
the same on a real one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from afterswarm.core.dataplane import mesh
from afterswarm.core.dataplane.container_rules import container
from afterswarm.core.dataplane.host_rules import host
from afterswarm.core.dataplane.ruleset import NOTHING, TABLE, Part, Ruleset
from afterswarm.model.network import Network, NetworkSpec
from afterswarm.model.service import PortConfig
from afterswarm.model.session import Peer, Route, Target

NODES = ["n1", "n2", "n3"]
INGRESS = Network(
    id="ingress000000000000000000",
    spec=NetworkSpec(name="ingress", ingress=True),
    subnet="10.0.0.0/24",
    gateways={"n1": "10.0.0.251", "n2": "10.0.0.252", "n3": "10.0.0.253"},
)
BACKEND = replace(INGRESS, id="backend", spec=NetworkSpec(name="backend"), subnet="10.0.1.0/24")
PEERS = [Peer(node_id=n, address=f"10.77.0.{i}", returns=n != "n3") for i, n in enumerate(NODES, start=1)]


class Kernel:
    """`chains`: name -> rules; `sets`: name -> elements."""

    def __init__(self) -> None:
        self.shape = ""
        self.chains: dict[str, list[str]] = {}
        self.sets: dict[str, dict[str, str]] = {}

    def take(self, text: str) -> None:
        while text:
            head, _, rest = text.partition("\n")
            if head == f"table {TABLE} {{":
                body, _, text = rest.partition("\n}\n")
                self._begin(body + "\n")
                continue
            text = rest
            if head == f"delete table {TABLE}":
                self.__init__()  # type: ignore[misc]
            elif not re.match(r"(delete )?table ", head):
                self._change(head)
        self._check()

    def _begin(self, body: str) -> None:
        for name, rules in re.findall(r"\tchain (\w+) {\n(.*?)\t}\n", body, re.DOTALL):
            assert name not in self.chains
            self.chains[name] = [rule.strip() for rule in rules.splitlines()]
        for name in re.findall(r"\t(?:set|map) (\w+) {", body):
            self.sets[name] = {}

    def _change(self, line: str) -> None:
        verb, kind, family, table, name, *_ = line.split(" ")
        assert f"{family} {table}" == TABLE
        match verb, kind:
            case "add", "chain":
                assert name not in self.chains
                self.chains[name] = []
            case "flush", "chain":
                self.chains[name].clear()
            case "delete", "chain":
                del self.chains[name]
            case "add", "rule":
                self.chains[name].append(line.split(" ", 5)[5])
            case _, "element":
                there = self.sets[name]
                for element in line.partition("{ ")[2].removesuffix(" }").split(", "):
                    key, _, value = element.partition(" : ")
                    if verb == "delete":
                        del there[key]
                    else:
                        assert there.setdefault(key, value) == value, "the key has another value"
            case _:
                raise AssertionError(line)

    def _check(self) -> None:
        """Whatever is led to is there."""
        rules = [rule for found in self.chains.values() for rule in found]
        values = [value for found in self.sets.values() for value in found.values()]
        for name in re.findall(r"(?:goto|jump) (\w+)", "\n".join([*rules, *values])):
            assert name in self.chains


def shown(*texts: str) -> tuple[dict[str, list[str]], dict[str, dict[str, str]]]:
    kernel = Kernel()
    for text in texts:
        kernel.take(text)
    kernel.sets.pop("alive", None)  # it lives by packets
    return kernel.chains, kernel.sets


targets = st.builds(
    lambda number, node, ready: Target(
        task_id=f"t{number}",
        node_id=node,
        addresses={INGRESS.id: f"10.0.0.{number}", BACKEND.id: f"10.0.1.{number}"},
        ready=ready,
    ),
    st.integers(11, 14),  # few: services share an address now and then, as when one task follows another
    st.sampled_from(NODES),
    st.booleans(),
)
ports = st.lists(
    st.builds(PortConfig, protocol=st.sampled_from(["tcp", "udp"]), published_port=st.integers(80, 84)),
    min_size=1,
    max_size=2,
)
routes = st.lists(
    st.builds(
        lambda number, ports, targets, masquerade, places: Route(
            service_id=f"s{number}",
            vips={BACKEND.id: f"10.0.1.{200 + number}"},
            ports=[replace(port, target_port=8000 + number) for port in ports],
            targets=targets,
            masquerade=masquerade,
            published_on={"tcp/80": places} if places else {},
        ),
        st.integers(0, 4),
        ports,
        st.lists(targets, max_size=5, unique_by=lambda t: t.task_id),
        st.booleans(),
        st.lists(st.sampled_from(["10.77.0.1", "127.0.0.1"]), max_size=2, unique=True),
    ),
    max_size=4,
    unique_by=lambda r: r.service_id,
)


@st.composite
def changes(draw: st.DrawFn) -> tuple[list[Route], list[Route]]:
    """Routes before and after: some stay, some go, some come or are others."""
    was, new = draw(routes), draw(routes)
    stay = draw(st.sets(st.sampled_from([r.service_id for r in was]))) if was else set()
    return was, [*(r for r in was if r.service_id in stay), *(r for r in new if r.service_id not in stay)]


peers = st.lists(st.sampled_from(PEERS), min_size=1, max_size=3, unique_by=lambda p: p.node_id)


def of_host(routes: Sequence[Route], peers: Sequence[Peer] = PEERS, before: Ruleset = NOTHING) -> Ruleset:
    return host(node_id="n1", networks=[INGRESS, BACKEND], routes=routes, peers=peers, before=before)


def of_container(routes: Sequence[Route]) -> Ruleset:
    return container(task_id="t", attached={BACKEND.id: "10.0.1.9"}, networks=[BACKEND], routes=routes)


@settings(max_examples=300)
@given(changes(), peers, peers)
def test_a_host_that_is_changed_is_as_one_that_is_written_anew(
    routes: tuple[list[Route], list[Route]], known: list[Peer], known_now: list[Peer]
) -> None:
    was, now = routes
    old = of_host(was, known)
    new = of_host(now, known_now, old)
    change = new.since(old)
    assert change is not None, "no change of services or hosts is one of the shape"
    assert shown(old.full(), change) == shown(new.full()) == shown(of_host(now, known_now).full())
    assert new.since(new) == of_host(now, known_now).since(new) == ""


@given(changes())
def test_a_container_that_is_changed_is_as_one_that_is_written_anew(routes: tuple[list[Route], list[Route]]) -> None:
    old, new = map(of_container, routes)
    change = new.since(old)
    assert change is not None
    assert shown(old.full(), change) == shown(new.full())
    assert of_container(routes[1]).since(new) == ""


def test_what_has_not_changed_is_not_made_again() -> None:
    found = [Route(service_id=f"s{n}", ports=[PortConfig(published_port=80 + n, target_port=80)]) for n in range(3)]
    old = of_host(found)
    new = of_host([replace(found[0], targets=[Target(task_id="t")]), *(replace(r) for r in found[1:])], before=old)
    assert [key for key in new.parts if new.parts[key] is old.parts.get(key)] == ["s1", "s2"]
    assert all(of_host(found, PEERS[:2], old).parts[key] is not old.parts[key] for key in old.parts), "hosts are others"


def test_another_shape_is_written_anew() -> None:
    old = of_host([])
    assert host(node_id="n1", networks=[INGRESS], routes=[], peers=PEERS, tunnel_port=1).since(old) is None
    assert NOTHING.since(old) is None
    assert NOTHING.since(NOTHING) == ""


def test_only_what_differs_is_in_a_change() -> None:
    """An endpoint goes out of one service of two: few elements, and chains that the other does not need."""
    there = [Target(task_id=f"t{n}", node_id="n2", addresses={INGRESS.id: f"10.0.0.{n}"}, ready=True) for n in (11, 12)]
    found = [
        Route(service_id=f"s{n}", ports=[PortConfig(published_port=80 + n, target_port=80)], targets=there)
        for n in (1, 2)
    ]
    old = of_host(found)
    change = of_host([replace(found[0], targets=there[:1]), found[1]], before=old).since(old)
    assert change is not None
    assert "tcp . 82" not in change
    assert "again_2" not in change
    assert "delete chain inet afterswarm pick_2_" in change
    assert "delete element inet afterswarm published { tcp . 81 }" in change
    assert len(change.splitlines()) == 5


@pytest.mark.parametrize(("before", "after", "lines"), [("a", "a", 0), ("a", "b", 2)])
def test_a_chain_of_another_content_is_filled_anew(before: str, after: str, lines: int) -> None:
    old = Ruleset(shape="x", parts={"": Part(chains={"c": [before]})})
    change = Ruleset(shape="x", parts={"": Part(chains={"c": [after]})}).since(old)
    assert change is not None
    assert len(change.splitlines()) == lines


def test_marks_leave_room_for_every_slot() -> None:
    assert mesh.TAG | mesh.HOST | mesh.SLOT == mesh.TAG | ~mesh.TAGGED & 0xFFFFFFFF
    assert mesh.MOST == mesh.SLOT + 1
