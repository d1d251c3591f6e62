"""Encrypted networks on real namespaces, with WireGuard in its userspace form where the kernel has none."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import kernel_lab as net
import msgspec
import pytest
from msgspec.structs import replace

from afterswarm.adapters.kernel import wireguard as adapter
from afterswarm.core.dataplane import host_rules, paths, vxlan, wireguard
from afterswarm.model.network import NetworkSpec
from afterswarm.model.repair import ENCRYPTION, Difference
from afterswarm.model.session import Peer

pytestmark = [pytest.mark.real, pytest.mark.skipif(not net.is_root(), reason="needs root")]

SEALED = replace(net.BACKEND, spec=NetworkSpec(name="backend", options={"encrypted": ""}))
SECRET = b"nobody but the two of us may read this"
EVERY_PROTOCOL = 3


class Swarm:
    """Both hosts of a lab, a container on each; `say` brings them to what a manager would want of them."""

    def __init__(self) -> None:
        self.lab = net.Lab()
        self.keys: dict[str, tuple[str, str]] = {}
        self.one, self.two = self.lab.container("n1", 1), self.lab.container("n2", 2)
        self.web = net.web(net.target(1, "n1"), net.target(2, "n2"))

    async def new_key(self, node: str) -> None:
        self.keys[node] = await self.lab.kernels[node].key_pair()

    def peers(self) -> list[Peer]:
        return [replace(peer, wireguard=self.keys[peer.node_id][1]) for peer in net.PEERS if peer.node_id in self.keys]

    def links(self, node: str, network: Any = SEALED) -> list[Any]:
        wanted = vxlan.links(node_id=node, networks=[network], routes=[self.web], peers=self.peers())
        return [msgspec.to_builtins(link) for link in wanted]

    async def say(self, *nodes: str, network: Any = SEALED, rules: bool = False) -> list[Difference]:
        """What was not as it is to be, of the tunnel itself."""
        found = []
        for node in nodes or ("n1", "n2"):
            kernel = self.lab.kernels[node]
            tunnel = wireguard.tunnel(node_id=node, networks=[network], peers=self.peers())
            found += await kernel.sync_wireguard(msgspec.to_builtins(tunnel), self.keys[node][0])
            await kernel.sync_links(self.links(node, network))
            ruleset = host_rules.host(node_id=node, networks=[network], routes=[self.web], peers=self.peers())
            await kernel.apply(ruleset if rules else host_rules.NOTHING)
        return found

    def passes(self, text: bytes = b"hello", timeout: float = 0.7, port: int = 9999) -> bool:
        """Whether a datagram from one container gets to the other."""
        with self.two.socket(socket.SOCK_DGRAM) as ear, self.one.socket(socket.SOCK_DGRAM) as mouth:
            ear.bind(("0.0.0.0", port))
            ear.settimeout(timeout)
            mouth.sendto(text, ("10.200.1.12", port))
            with suppress(TimeoutError):
                return bool(ear.recv(9999) == text)
        return False

    def processes(self, node: str) -> list[int]:
        """Of the userspace device on this host."""
        here = Path(f"/proc/{self.lab.hosts[node].pid}/ns/net").readlink()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (process / "comm").read_text() == "wireguard-go\n" and (process / "ns/net").readlink() == here:
                    found.append(int(process.name))
        return found


@pytest.fixture(scope="module")
def made() -> Iterator[Swarm]:
    swarm = Swarm()
    yield swarm
    swarm.lab.close()


@pytest.fixture
async def swarm(made: Swarm) -> Swarm:
    for node in ("n1", "n2"):
        await made.new_key(node)
    await made.say()
    return made


class Capture:
    """Everything that crosses the cable of host n1, in both directions."""

    def __init__(self, lab: Any) -> None:
        with net.inside(lab.wire.pid):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERY_PROTOCOL))
        self._socket.bind(("v1", 0))
        self._socket.settimeout(0)

    def frames(self) -> list[bytes]:
        found = []
        with suppress(BlockingIOError):
            while True:
                found.append(self._socket.recv(65535))
        return found

    def close(self) -> None:
        self._socket.close()


async def test_nobody_on_the_wire_reads_it(swarm: Swarm) -> None:
    """The same capture of the same datagrams reads them when the network is in the clear: it would see them."""
    for network in (net.BACKEND, SEALED):
        readable = not network.encrypted
        await swarm.say(network=network, rules=True)
        with closing(Capture(swarm.lab)) as capture:
            assert swarm.passes(SECRET, timeout=3)
            assert swarm.passes(SECRET * 30)
            frames = capture.frames()
        assert frames
        assert any(SECRET in frame for frame in frames) is readable
        ports = {int.from_bytes(frame[36:38]) for frame in frames if frame[12:14] == b"\x08\x00" and frame[23] == 17}
        assert ports - {net.BEATS} == {vxlan.PORT if readable else wireguard.PORT}


async def test_what_did_not_come_through_the_tunnel_is_not_taken(swarm: Swarm) -> None:
    """In the clear, from a stranger or a host, over IPv4 or IPv6: not taken, rules or no rules."""
    assert swarm.passes(timeout=3)
    host, other, outside = swarm.lab.hosts["n1"], swarm.lab.hosts["n2"], swarm.lab.outside
    addresses = {"outside": outside, "n2": other}
    packet = net.in_tunnel(SEALED, "10.200.1.99", "10.200.1.11", 9999, b"forged")
    own, tunnels = "fd00:77::1", wireguard.address_of("n1")
    for number, where in enumerate((host, *addresses.values()), start=1):
        where.run("ip", "address", "replace", f"fd00:77::{number}/64", "dev", "eth0", "nodad")
        if where is not host:  # nobody answers for the tunnel's address out there: say who has it
            where.run("ip", "-6", "neigh", "replace", tunnels, "lladdr", mac_of(host), "dev", "eth0")
    for rules in (True, False):
        await swarm.say(rules=rules)
        with swarm.one.socket(socket.SOCK_DGRAM) as inner:
            inner.bind(("0.0.0.0", 9999))
            inner.settimeout(0.3)
            for name, where in addresses.items():
                for to in ("10.177.0.1", own, tunnels):
                    with net.inside(where.pid), socket.socket(family(to), socket.SOCK_DGRAM) as sender:
                        scope = socket.if_nametoindex("eth0") if ":" in to else 0
                        sender.sendto(packet, (to, vxlan.PORT, 0, scope) if scope else (to, vxlan.PORT))
                    with pytest.raises(TimeoutError):
                        pytest.fail(f"{inner.recv(99)!r} from {name} to {to}, rules: {rules}")
            # and through the tunnel it is, or the above shows nothing
            with net.inside(other.pid), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
                sender.sendto(packet, (tunnels, vxlan.PORT, 0, socket.if_nametoindex(wireguard.DEVICE)))
            assert inner.recv(99) == b"forged"


def family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def mac_of(host: Any) -> str:
    [shown] = msgspec.json.decode(host.run("ip", "-j", "link", "show", "dev", "eth0"))
    return str(shown["address"])


async def test_a_host_alone_takes_nothing_either(swarm: Swarm) -> None:
    """Before there is anybody to encrypt for, as when the first task of a network starts."""
    alone = [replace(net.PEERS[0], wireguard=swarm.keys["n1"][1])]
    tunnel = wireguard.tunnel(node_id="n1", networks=[SEALED], peers=alone)
    kernel = swarm.lab.kernels["n1"]
    await kernel.sync_wireguard(msgspec.to_builtins(tunnel), swarm.keys["n1"][0])
    links = vxlan.links(node_id="n1", networks=[SEALED], routes=[swarm.web], peers=alone)
    await kernel.sync_links([msgspec.to_builtins(link) for link in links])
    packet = net.in_tunnel(SEALED, "10.200.1.99", "10.200.1.11", 9999, b"forged")
    with swarm.one.socket(socket.SOCK_DGRAM) as inner, swarm.lab.outside.socket(socket.SOCK_DGRAM) as sender:
        inner.bind(("0.0.0.0", 9999))
        inner.settimeout(0.3)
        sender.sendto(packet, ("10.177.0.1", vxlan.PORT))
        with pytest.raises(TimeoutError):
            inner.recv(99)


async def test_what_breaks_is_repaired_and_nothing_leaves_in_the_clear_meanwhile(swarm: Swarm) -> None:
    assert swarm.passes(timeout=3)
    host = swarm.lab.hosts["n1"]

    def killed() -> None:
        for pid in swarm.processes("n1"):
            os.kill(pid, 9)
            wait_for(lambda: wireguard.DEVICE not in host.run("ip", "link"))

    breaks = {
        "device": lambda: host.run("ip", "link", "del", wireguard.DEVICE),
        "process": killed,
        "down": lambda: host.run("ip", "link", "set", wireguard.DEVICE, "down"),
        "address": lambda: host.run("ip", "address", "flush", "dev", wireguard.DEVICE),
        "peer": lambda: swarm.lab.kernels["n1"]._call("sync_wireguard", lonely(swarm), swarm.keys["n1"][0]),
    }
    for node in ("n1", "n2"):
        assert await swarm.say(node) == [], "nothing is broken yet"
    for what, broken in breaks.items():
        broken()
        with closing(Capture(swarm.lab)) as capture:
            assert not swarm.passes(SECRET, timeout=0.2), what
            assert not any(SECRET in frame for frame in capture.frames()), what
        [found] = await swarm.say("n1")
        assert found.kind == ENCRYPTION
        assert swarm.passes(timeout=6), what


def lonely(swarm: Swarm) -> Any:
    peers = [replace(net.PEERS[0], wireguard=swarm.keys["n1"][1])]
    return msgspec.to_builtins(wireguard.tunnel(node_id="n1", networks=[SEALED], peers=peers))


def wait_for(good: Any) -> None:
    ends = time.monotonic() + 3
    while not good():
        assert time.monotonic() < ends
        time.sleep(0.01)


async def test_a_process_that_has_lost_its_device_does_not_hold_the_port(swarm: Swarm) -> None:
    """As one that hangs would: it is stopped, so it cannot end by itself."""
    host = swarm.lab.hosts["n1"]
    before = swarm.processes("n1")
    for pid in before:
        os.kill(pid, signal.SIGSTOP)
    host.run("ip", "link", "del", wireguard.DEVICE)
    await swarm.say("n1")
    assert swarm.passes(timeout=6)
    wait_for(lambda: not set(swarm.processes("n1")) & set(before))


async def test_the_next_daemon_finds_it_and_changes_nothing(swarm: Swarm) -> None:
    assert swarm.passes(timeout=3)
    host, before = swarm.lab.hosts["n1"], swarm.processes("n1")
    assert len(before) == (0 if "wireguard" in kinds(host) else 1)
    shown = host.run("ip", "-d", "address", "show", "dev", wireguard.DEVICE)
    await swarm.say()
    assert swarm.processes("n1") == before
    assert host.run("ip", "-d", "address", "show", "dev", wireguard.DEVICE) == shown
    assert swarm.passes()


def kinds(host: Any) -> set[str]:
    shown = msgspec.json.decode(host.run("ip", "-j", "-d", "link", "show", "dev", wireguard.DEVICE))
    return {link.get("linkinfo", {}).get("info_kind", "") for link in shown}


async def test_another_key(swarm: Swarm) -> None:
    assert swarm.passes(timeout=3)
    await swarm.new_key("n1")
    await swarm.say("n1")
    assert not swarm.passes(timeout=0.3), "the other host does not know it yet"
    await swarm.say("n2")
    assert swarm.passes(timeout=6)


async def test_an_encrypted_ingress_network(swarm: Swarm) -> None:
    """Published ports through it, with and without a task on the dialled host; the client's address is kept."""
    lab = swarm.lab
    ingress = replace(net.INGRESS, spec=NetworkSpec(name="ingress", ingress=True, options={"encrypted": ""}))
    for name, where in (("one", swarm.one), ("two", swarm.two)):
        lab.serve(name, where)
    for node in ("n1", "n2"):
        await swarm.say(node, network=ingress, rules=True)
        await lab.kernels[node].sync_returns([msgspec.to_builtins(way) for way in paths.returns([ingress], node)])
    with closing(Capture(lab)) as capture:
        for entry in ("10.177.0.1", "10.177.0.2"):
            assert {net.ask(lab.outside, entry, 8080, timeout=6) for _ in range(6)} == {
                "one 10.177.0.9",
                "two 10.177.0.9",
            }
        between = [f for f in capture.frames() if f[26:34] == b"\x0a\xb1\x00\x01\x0a\xb1\x00\x02"]
    assert between
    assert not any(b"one" in frame or b"two" in frame for frame in between)


async def test_it_is_gone_when_no_network_is_encrypted(swarm: Swarm) -> None:
    await swarm.say(network=net.BACKEND)
    for node, host in swarm.lab.hosts.items():
        assert wireguard.DEVICE not in host.run("ip", "link")
        wait_for(lambda: not swarm.processes(node))  # noqa: B023
    assert swarm.passes(timeout=3), "in the clear, as it was asked for"


def test_a_host_that_cannot_says_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("unshare", "ip"):
        (tmp_path / name).symlink_to(shutil.which(name) or "")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match="install wireguard-tools"):
        adapter.key_pair("")
    in_kernel = subprocess.run(["unshare", "--net", "ip", "link", "add", "w", "type", "wireguard"], check=False)
    (tmp_path / "wg").symlink_to("/usr/bin/wg")
    if in_kernel.returncode:
        with pytest.raises(OSError, match="install wireguard-go"):
            adapter.key_pair("")
