"""Hosts and containers as network namespaces, for tests of the data plane. Needs root; leaves nothing behind.

A namespace lives as long as the process that holds it. Sockets are made inside and used from the test's own process.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import pickle
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from afterswarm.adapters.kernel.namespaces import inside
from afterswarm.core.dataplane import mesh, paths
from afterswarm.core.dataplane.host_rules import BEATS
from afterswarm.core.dataplane.ruleset import Ruleset
from afterswarm.core.dataplane.vxlan import bridge_name, container_mac
from afterswarm.model.network import Network, NetworkSpec
from afterswarm.model.repair import Difference
from afterswarm.model.service import PortConfig
from afterswarm.model.session import Peer, Route, Target
from afterswarm.ports import Json

KERNEL = """
import asyncio, base64, json, pickle, sys
from afterswarm.adapters.kernel.linux import LinuxKernel

async def main():
    kernel = LinuxKernel()
    for line in sys.stdin:
        name, args, kwargs = json.loads(line)
        if name == "apply":
            args = [pickle.loads(base64.b64decode(args[0]))]
        try:
            said = [await getattr(kernel, name)(*args, **kwargs)]
        except OSError as error:
            said = [type(error).__name__, str(error)]
        print(json.dumps(said), flush=True)

asyncio.run(main())
"""

INGRESS = Network(
    id="ingress000000000000000000",
    spec=NetworkSpec(name="ingress", ingress=True),
    subnet="10.200.0.0/24",
    vni=4096,
    gateways={"n1": "10.200.0.254", "n2": "10.200.0.253", "n3": "10.200.0.252"},
)
BACKEND = Network(
    id="backend000000000000000000",
    spec=NetworkSpec(name="backend"),
    subnet="10.200.1.0/24",
    vni=4097,
    gateways={"n1": "10.200.1.254", "n2": "10.200.1.253", "n3": "10.200.1.252"},
)
NETWORKS = [INGRESS, BACKEND]
PEERS = [Peer(node_id=f"n{n}", address=f"10.177.0.{n}", returns=True) for n in (1, 2, 3)]
VIP = "10.200.1.2"


def target(number: int, node: str, *, ready: bool = True) -> Target:
    addresses = {INGRESS.id: f"10.200.0.{10 + number}", BACKEND.id: f"10.200.1.{10 + number}"}
    name = f"web.{number}.t{number}"
    return Target(task_id=f"t{number}", node_id=node, name=name, slot=number, addresses=addresses, ready=ready)


def web(*targets: Target) -> Route:
    ports = [PortConfig(protocol=p, target_port=80, published_port=8080) for p in ("tcp", "udp")]
    vips = {BACKEND.id: VIP, INGRESS.id: "10.200.0.2"}
    return Route(service_id="web", name="web", vips=vips, ports=ports, targets=list(targets))


class Namespace:
    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo; exec sleep 3600"], stdout=subprocess.PIPE
        )
        assert self._holder.stdout
        self._holder.stdout.readline()  # it is in its namespace now
        self.pid = self._holder.pid
        self.run("ip", "link", "set", "lo", "up")

    def run(self, *command: str, stdin: str = "") -> str:
        command = ("nsenter", f"--net=/proc/{self.pid}/ns/net", *command)
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def socket(self, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
        with inside(self.pid):
            return socket.socket(socket.AF_INET, kind)

    def close(self) -> None:
        if self._holder.returncode is None:
            self._holder.kill()
            self._holder.communicate()


class HostKernel:
    """The real adapter in a process in a host's namespace, as a daemon would have it."""

    def __init__(self, host: Namespace) -> None:
        """With a /run of its own: hosts on one machine would find each other's sockets there."""
        program = ["sh", "-c", 'mount -t tmpfs tmpfs /run && exec "$@"', "sh", sys.executable, "-c", KERNEL]
        command = ["nsenter", f"--net=/proc/{host.pid}/ns/net", "unshare", "--mount", *program]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    async def apply(self, ruleset: Ruleset, *, netns_pid: int | None = None) -> list[Difference]:
        said = self._call("apply", base64.b64encode(pickle.dumps(ruleset)).decode(), netns_pid=netns_pid)
        return [Difference(*each) for each in said]

    async def sync_links(self, links: Sequence[Json]) -> list[Difference]:
        return [Difference(*each) for each in self._call("sync_links", list(links))]

    async def sync_returns(self, returns: Sequence[Json]) -> list[Difference]:
        return [Difference(*each) for each in self._call("sync_returns", list(returns))]

    async def key_pair(self, private: str = "") -> tuple[str, str]:
        private, public = self._call("key_pair", private)
        return private, public

    async def sync_wireguard(self, tunnel: Json | None, private: str = "") -> list[Difference]:
        return [Difference(*each) for each in self._call("sync_wireguard", tunnel, private)]

    async def underlay(self, address: str) -> int:
        return int(self._call("underlay", address))

    async def source(self, *, netns_pid: int) -> str:
        return str(self._call("source", netns_pid=netns_pid))

    async def lead_out(self, gateway: str, *, netns_pid: int) -> str:
        return str(self._call("lead_out", gateway, netns_pid=netns_pid))

    async def ipv6(self) -> list[str] | None:
        found: list[str] | None = self._call("ipv6")
        return found

    async def forward_ipv6(self) -> None:
        self._call("forward_ipv6")

    async def returning(self) -> bool:
        return bool(self._call("returning"))

    async def forget_flows(
        self,
        addresses: Collection[str],
        *,
        netns_pid: int | None = None,
        datagrams: bool = False,
        unanswered: bool = False,
    ) -> None:
        kinds = {"datagrams": datagrams, "unanswered": unanswered}
        self._call("forget_flows", sorted(addresses), netns_pid=netns_pid, **kinds)

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([args[0], args[1:], kwargs]) + "\n")
        self._process.stdin.flush()
        said = json.loads(self._process.stdout.readline())
        if len(said) > 1:
            raise {"ProcessLookupError": ProcessLookupError}.get(said[0], OSError)(said[1])
        return said[0]

    def close(self) -> None:
        if self._process.poll() is None:
            self._call("sync_wireguard", None)  # what it started outlives it
        self._process.kill()
        self._process.communicate()


class Agent:
    """All of a host's network, in a process in its namespace: see `host_agent`."""

    def __init__(self, node: str, host: Namespace) -> None:
        command = [
            "nsenter",
            f"--net=/proc/{host.pid}/ns/net",
            sys.executable,
            Path(__file__).with_name("host_agent.py"),
            node,
        ]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def tell(self, *what: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(msgspec.json.encode(what) + b"\n")
        self._process.stdin.flush()
        return msgspec.json.decode(self._process.stdout.readline())

    def repairs(self) -> dict[str, int]:
        done: dict[str, int] = self.tell("repairs")["done"]
        return done

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class Server:
    """Answers on port 80, TCP and UDP, with its name and the client's address; keeps connections open."""

    def __init__(self, name: str, where: Namespace) -> None:
        self.name = name
        self._listener = where.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("0.0.0.0", 80))
        self._listener.listen()
        self._datagrams = where.socket(socket.SOCK_DGRAM)
        self._datagrams.bind(("0.0.0.0", 80))
        self._accepted: list[socket.socket] = []
        self._threads = [
            threading.Thread(target=self._serve, daemon=True),
            threading.Thread(target=self._echo, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def say(self, said: bytes) -> None:
        """On every connection that it keeps."""
        for accepted in self._accepted:
            accepted.sendall(said)

    def drop(self) -> None:
        """Every connection that it keeps."""
        while self._accepted:
            self._accepted.pop().close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, (client, _) = self._listener.accept()
                self._accepted.append(accepted)
                accepted.sendall(f"{self.name} {client}\n".encode())

    def _echo(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                question, client = self._datagrams.recvfrom(2048)
                if not question:
                    return
                self._datagrams.sendto(f"{self.name} {client[0]}\n".encode(), client)

    def close(self) -> None:
        for used in (self._listener, self._datagrams):
            with contextlib.suppress(OSError):
                used.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for used in (self._listener, self._datagrams, *self._accepted):
            used.close()


class Beating:
    """Each host of a lab that is not mute tells the others ten times a second that it is there."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._sockets = {node: host.socket(socket.SOCK_DGRAM) for node, host in lab.hosts.items()}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._over.wait(0.1):
            for node, out in self._sockets.items():
                for peer in PEERS:
                    if node not in {*self._lab.mute, peer.node_id}:
                        with contextlib.suppress(OSError):
                            out.sendto(b"beat", (peer.address, BEATS))

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        for out in self._sockets.values():
            out.close()


class Lab:
    """Hosts n1, n2 and n3 on a wire with `outside`; each has the bridges that its engine would have made.

    Their firewalls are those of an engine: FORWARD drops all but what leaves a bridge, its answers, and what
    DOCKER-USER accepts; what leaves a host's networks leaves with the host's address.
    """

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.wire = self._made(Namespace())
        self.wire.run("ip", "link", "add", "wire", "type", "bridge")
        self.wire.run("ip", "link", "set", "wire", "up")
        self.outside = self._on_the_wire(9)
        self.hosts = {node: self._on_the_wire(number) for number, node in enumerate(("n1", "n2", "n3"), start=1)}
        for node, host in self.hosts.items():
            forward, out = [], []
            for network in NETWORKS:
                bridge = bridge_name(network.id)
                forward.append(f"-A FORWARD -o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
                forward.append(f"-A FORWARD -i {bridge} ! -o {bridge} -j ACCEPT")
                out.append(f"-A POSTROUTING -s {network.subnet} ! -o {bridge} -j MASQUERADE")
                host.run("ip", "link", "add", bridge, "type", "bridge")
                host.run("ip", "addr", "add", f"{network.gateways[node]}/24", "dev", bridge)
                host.run("ip", "link", "set", bridge, "up")
            user = [
                "*filter",
                ":FORWARD DROP",
                ":DOCKER-USER -",
                "-A FORWARD -j DOCKER-USER",
                "-A DOCKER-USER -j RETURN",
            ]
            rules = [*user, *forward, "COMMIT", "*nat", *out, "COMMIT", ""]
            host.run("iptables-restore", stdin="\n".join(rules))
            host.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=1")
        self.kernels = {node: self._made(HostKernel(host)) for node, host in self.hosts.items()}
        self.mute: set[str] = set()
        self._made(Beating(self))

    def _made(self, thing: Any) -> Any:
        self._stack.callback(thing.close)
        return thing

    def _on_the_wire(self, number: int) -> Namespace:
        made: Namespace = self._made(Namespace())
        peer = ("peer", "name", "eth0", "netns", str(made.pid))
        self.wire.run("ip", "link", "add", f"v{number}", "type", "veth", *peer)
        self.wire.run("ip", "link", "set", f"v{number}", "master", "wire", "up")
        made.run("ip", "addr", "add", f"10.177.0.{number}/24", "dev", "eth0")
        made.run("ip", "link", "set", "eth0", "up")
        return made

    def container(self, node: str, number: int) -> Namespace:
        """Like an engine's: its default route is in the backend network, whatever it is asked through."""
        made: Namespace = self._made(Namespace())
        made.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")  # it would announce itself
        host = self.hosts[node]
        for index, network in enumerate((BACKEND, INGRESS)):
            address = f"10.200.{1 - index}.{10 + number}"
            name = f"c{number}-{index}"
            peer = ("peer", "name", f"eth{index}", "address", container_mac(address), "netns", str(made.pid))
            host.run("ip", "link", "add", name, "type", "veth", *peer)
            host.run("ip", "link", "set", name, "master", bridge_name(network.id), "up")
            made.run("ip", "addr", "add", f"{address}/24", "dev", f"eth{index}")
            made.run("ip", "link", "set", f"eth{index}", "up")
        made.run("ip", "route", "add", "default", "via", BACKEND.gateways[node])
        return made

    def serve(self, name: str, where: Namespace) -> Server:
        server: Server = self._made(Server(name, where))
        return server

    async def heard(self, node: str, peer: str) -> None:
        """Return once the kernel of `node` knows that `peer` is alive."""
        mark = f"{mesh.mark(paths.place(INGRESS, INGRESS.gateways[peer])):#x}"
        for _ in range(100):
            if mark in self.hosts[node].run("nft", "list", "set", "inet", "afterswarm", "alive"):
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"{node} does not hear {peer}")

    def close(self) -> None:
        self._stack.close()


@contextlib.contextmanager
def connected(where: Namespace, address: str, port: int, *, timeout: float = 3) -> Iterator[tuple[socket.socket, str]]:
    """A connection, and what the server said first."""
    with where.socket() as client:
        client.settimeout(timeout)
        client.connect((address, port))
        yield client, client.recv(200).decode().strip()


def ask(where: Namespace, address: str, port: int, *, udp: bool = False, timeout: float = 3) -> str:
    """Who answered, and how the client looked to it."""
    if not udp:
        with connected(where, address, port, timeout=timeout) as (_, said):
            return said
    with where.socket(socket.SOCK_DGRAM) as client:
        client.settimeout(timeout)
        client.connect((address, port))
        client.send(b"?")
        return client.recv(200).decode().strip()


def who(where: Namespace, address: str, port: int, times: int = 6) -> set[str]:
    """The servers that answer."""
    with ThreadPoolExecutor(1) as pool:  # a thread of its own may change its namespace
        return {said.split()[0] for said in (pool.submit(ask, where, address, port).result() for _ in range(times))}


def in_tunnel(network: Network, source: str, address: str, port: int, said: bytes) -> bytes:
    """What a VXLAN packet carries: its header, and a frame with a datagram from `source` for a container."""
    datagram = struct.pack("!HHHH", 1234, port, 8 + len(said), 0) + said
    head = bytearray(struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), 0, 0, 64, 17, 0))
    head += socket.inet_aton(source) + socket.inet_aton(address)
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    head[10:12] = struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF)
    frame = bytes.fromhex(container_mac(address).replace(":", "") + "02af00000099" + "0800") + head + datagram
    return struct.pack("!II", 0x08000000, network.vni << 8) + frame


def rules(where: Namespace, *what: str) -> list[str]:
    """What nft lists, but for what beats and time change; elements are in no order."""
    shown = json.loads(where.run("nft", "-j", "list", *(what or ("ruleset",))))["nftables"]
    found = []
    for kind, about in sorted(
        (next(iter(item.items())) for item in shown), key=lambda i: (i[0], i[1].get("chain", i[1].get("name", "")))
    ):
        if about.get("name") == "alive":
            about.pop("elem", None)
        if "elem" in about:
            about["elem"].sort(key=json.dumps)
        if kind != "metainfo":
            found.append(json.dumps({k: v for k, v in about.items() if k != "handle"} | {"": kind}))
    return found


def is_root() -> bool:
    return os.geteuid() == 0
