"""Which hosts an encrypted network reaches, how, and how large packets may be."""

from __future__ import annotations

from base64 import b64encode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from afterswarm.core.dataplane import sizes, vxlan, wireguard
from afterswarm.model.network import MTU, Network, NetworkSpec
from afterswarm.model.session import Peer, Route, Target

OPEN = Network(
    id="open000000000000000000000",
    spec=NetworkSpec(name="open"),
    subnet="10.0.1.0/24",
    vni=4097,
    gateways={f"n{n}": f"10.0.1.25{n}" for n in (1, 2, 3)},
)
SEALED = replace(OPEN, id="sealed0000000000000000000", spec=NetworkSpec(name="sealed", options={"encrypted": ""}))
KEYS = {f"n{n}": b64encode(bytes([n] * 32)).decode() for n in (1, 2, 3)}
PEERS = [Peer(node_id=node, address=f"10.77.0.{node[1]}", wireguard=key) for node, key in KEYS.items()]
TO = {node: wireguard.address_of(node) for node in KEYS}


def tunnel(*networks: Network, peers: list[Peer] = PEERS, node: str = "n1") -> wireguard.Tunnel | None:
    return wireguard.tunnel(node_id=node, networks=networks, peers=peers)


def links(network: Network, peers: list[Peer] = PEERS) -> list[vxlan.Link]:
    here = Target(task_id="t", node_id="n2", addresses={network.id: "10.0.1.12"}, ready=True)
    return vxlan.links(node_id="n1", networks=[network], routes=[Route(targets=[here])], peers=peers)


def test_a_host_knows_all_others_by_their_keys() -> None:
    assert tunnel(OPEN, SEALED) == wireguard.Tunnel(
        address=TO["n1"],
        mtu=1420,
        port=7948,
        ends=tuple(sorted(wireguard.End(KEYS[n], TO[n], f"10.77.0.{n[1]}") for n in ("n2", "n3"))),
    )
    assert all(address.startswith("fe80::") for address in TO.values())
    assert len(set(TO.values())) == len(TO)


def test_there_is_none_without_an_encrypted_network_here() -> None:
    assert tunnel(OPEN) is None
    assert tunnel(replace(SEALED, gateways={"n2": "10.0.1.252"})) is None


def test_an_encrypted_link_stands_on_it_and_knows_no_address_outside() -> None:
    [link] = links(SEALED)
    assert (link.local, link.via) == (TO["n1"], wireguard.DEVICE)
    assert {host for _, host in link.fdb} == {TO["n2"], TO["n3"]}
    assert ("02:42:0a:00:01:0c", TO["n2"]) in link.fdb
    [link] = links(OPEN)
    assert (link.local, link.via) == ("10.77.0.1", "")
    assert {host for _, host in link.fdb} == {"10.77.0.2", "10.77.0.3"}


def test_who_cannot_encrypt_is_left_out() -> None:
    peers = [PEERS[0], replace(PEERS[1], wireguard=""), PEERS[2]]
    [link] = links(SEALED, peers)
    assert {host for _, host in link.fdb} == {TO["n3"]}
    assert links(SEALED, [replace(PEERS[0], wireguard=""), *PEERS[1:]]) == [], "and has no link itself"


@pytest.mark.parametrize(
    "said",
    [
        {"wireguard": KEYS["n2"] + "\nAllowedIPs = ::/0"},
        {"wireguard": "short"},
        {"address": "10.77.0.2\n[Peer]"},
        {"data_path": "elsewhere.example"},
    ],
)
def test_what_is_not_a_key_or_an_address_gets_nowhere(said: dict[str, str]) -> None:
    """A host that was broken into may say anything of itself."""
    found = tunnel(SEALED, peers=[PEERS[0], replace(PEERS[1], **said), PEERS[2]])
    assert found
    assert [end.key for end in found.ends] == [KEYS["n3"]]


def test_two_hosts_with_one_key_are_one() -> None:
    found = tunnel(SEALED, peers=[*PEERS[:2], replace(PEERS[2], wireguard=KEYS["n2"])])
    assert found
    assert len(found.ends) == 1


@given(st.permutations(PEERS), st.permutations([OPEN, SEALED]))
def test_order_does_not_matter(peers: list[Peer], networks: list[Network]) -> None:
    assert tunnel(*networks, peers=peers) == tunnel(OPEN, SEALED)


def test_it_is_plain_values_on_the_wire() -> None:
    found = tunnel(SEALED)
    assert msgspec.convert(msgspec.to_builtins(found), wireguard.Tunnel) == found


# ---- how large a packet may be -------------------------------------------------------------------------------------


def wires(*mtus: int) -> list[Peer]:
    return [replace(peer, mtu=mtu) for peer, mtu in zip(PEERS, mtus, strict=True)]


@pytest.mark.parametrize(
    ("mtus", "clear", "sealed"),
    [
        ((0, 0, 0), 1450, 1350),  # nobody has said
        ((1500, 1500, 1500), 1450, 1350),
        ((9000, 9000, 9000), 8950, 8850),
        ((1400, 1400, 1400), 1350, 1250),
        ((9000, 1500, 9000), 1450, 1350),  # the smallest, wherever it is
        ((9000, 9000, 0), 1450, 1350),
    ],
)
def test_containers_get_what_passes_everywhere(mtus: tuple[int, ...], clear: int, sealed: int) -> None:
    assert sizes.of_containers(OPEN, wires(*mtus)) == clear
    assert sizes.of_containers(SEALED, wires(*mtus)) == sealed


def test_the_tunnel_keeps_what_ipv6_needs() -> None:
    found = tunnel(SEALED, peers=wires(1300, 1300, 1300))
    assert found
    assert found.mtu == 1280


def test_what_the_user_says_is_of_what_carries_the_network_as_with_docker() -> None:
    for network, expected in ((OPEN, 8950), (SEALED, 8850)):
        asked = replace(network, spec=replace(network.spec, options={**network.spec.options, MTU: "9000"}))
        assert sizes.of_containers(asked, wires(1500, 1500, 1500)) == expected
        assert sizes.of_link(asked, "n1", wires(1500, 1500, 1500)) == expected


def test_a_link_takes_what_its_own_wire_does() -> None:
    """So that two large hosts go on as before when a small one has come."""
    assert [sizes.of_link(OPEN, f"n{n}", wires(9000, 1500, 9000)) for n in (1, 2, 3)] == [8950, 1450, 8950]
    assert sizes.of_link(OPEN, "n9", wires(1500, 1500, 1500)) == 1450


@given(st.lists(st.integers(0, 65536), min_size=3, max_size=3), st.sampled_from([OPEN, SEALED]))
def test_no_link_is_too_small_for_its_containers(mtus: list[int], network: Network) -> None:
    peers = wires(*mtus)
    for node in KEYS:
        assert sizes.of_link(network, node, peers) >= sizes.of_containers(network, peers)
