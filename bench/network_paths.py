"""The paths that `network.py` compares: hosts and containers as namespaces on one wire, rules by the real planner.

Three hosts of ours (those of the contract tests), one with an engine's own rules and no more, and a client on the wire.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from afterswarm.core.dataplane import paths, vxlan
from afterswarm.core.dataplane.container_rules import container
from afterswarm.core.dataplane.host_rules import host
from afterswarm.model.service import PortConfig
from afterswarm.model.session import Route

sys.path.append(str(Path(__file__).parents[1] / "tests" / "contract"))
import kernel_lab as net

PROGRAM = str(Path(__file__).parent / "load" / "pingpong.py")
PLAIN = "10.177.0.4"  # the engine's host
INSIDE = "172.31.0.2"  # its container
PROXY = shutil.which("docker-proxy", path="/usr/bin:/usr/sbin:/usr/libexec/docker:/usr/local/bin")
NAMES = {
    "direct": "direct: to the container's own address",
    "dnat": "direct DNAT: an engine's published port",
    "local": "our mesh, container on the dialled host",
    "remote": "our mesh, container on another host",
    "masquerade": "the same, client's address hidden as in Swarm",
    "vip": "our virtual address, container to container on another host",
    "proxy": "docker-proxy",
    "ipvs": "IPVS on the container's host",
}


class Process:
    """Of ours, in a namespace, on one core if asked for; speaks in lines."""

    def __init__(self, where: Any, argv: Sequence[str], core: int | None = None) -> None:
        pinned = ["taskset", "-c", str(core)] if core is not None else []
        command = ["nsenter", f"--net=/proc/{where.pid}/ns/net", *pinned, *argv]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline()

    def ask(self, *question: object) -> Any:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self.line())

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class Stage:
    """`paths`: name -> the client to ask, the address and the port. `absent`: name -> why it cannot be measured."""

    def __init__(self, cores: int) -> None:
        self._cores = (0, 1) if cores > 1 else (None, None)  # who asks, who answers
        self.paths: dict[str, tuple[Process, str, int]] = {}
        self.absent: dict[str, str] = {}
        self._lab = net.Lab()
        self._made: list[Process] = []

    async def up(self) -> None:
        lab = self._lab
        outside = self._process(lab.outside, "ask")
        outer, inner = lab.container("n1", 1), lab.container("n2", 2)
        outer.run(
            "ip", "route", "replace", "default", "via", net.INGRESS.gateways["n1"]
        )  # a service of no other network
        self._serve(outer, "0.0.0.0", 80)
        plain = self._plain_host()
        lab.outside.run("ip", "route", "add", f"{INSIDE}/32", "via", PLAIN)
        self.paths["direct"] = outside, INSIDE, 80
        self.paths["dnat"] = outside, PLAIN, 9001
        await self._ours(inner)
        self.paths["local"] = outside, "10.177.0.1", 8080
        self.paths["remote"] = outside, "10.177.0.3", 8080
        self.paths["masquerade"] = outside, "10.177.0.3", 8081
        self.paths["vip"] = self._process(inner, "ask"), net.VIP, 80
        self._proxy(plain, outside)
        self._ipvs(plain, outside)

    def close(self) -> None:
        for process in self._made:
            process.close()
        self._lab.close()

    async def _ours(self, inner: Any) -> None:
        web = net.web(net.target(1, "n1"))
        hidden = PortConfig(target_port=80, published_port=8081)
        routes: list[Route] = [
            web,
            replace(web, service_id="web2", name="web2", vips={}, ports=[hidden], masquerade=True),
        ]
        for node, kernel in self._lab.kernels.items():
            links = vxlan.links(node_id=node, networks=net.NETWORKS, routes=routes, peers=net.PEERS)
            await kernel.sync_links([msgspec.to_builtins(link) for link in links])
            await kernel.apply(host(node_id=node, networks=net.NETWORKS, routes=routes, peers=net.PEERS))
            await kernel.sync_returns([msgspec.to_builtins(way) for way in paths.returns(net.NETWORKS, node)])
        attached = net.target(2, "").addresses
        virtual = container(task_id="t2", attached=attached, networks=net.NETWORKS, routes=routes)
        await self._lab.kernels["n2"].apply(virtual, netns_pid=inner.pid)

    def _plain_host(self) -> Any:
        """An engine's host as it is without us: a bridge, a container, and the rules of a published port."""
        plain, inside = self._lab._on_the_wire(4), self._lab._made(net.Namespace())
        plain.run("ip", "link", "add", "docker0", "type", "bridge")
        plain.run("ip", "addr", "add", "172.31.0.1/24", "dev", "docker0")
        plain.run("ip", "link", "set", "docker0", "up")
        plain.run("ip", "link", "add", "c1", "type", "veth", "peer", "name", "eth0", "netns", str(inside.pid))
        plain.run("ip", "link", "set", "c1", "master", "docker0", "up")
        inside.run("ip", "addr", "add", f"{INSIDE}/24", "dev", "eth0")
        inside.run("ip", "link", "set", "eth0", "up")
        inside.run("ip", "route", "add", "default", "via", "172.31.0.1")
        rules = f"""*filter
:FORWARD DROP
:DOCKER -
:DOCKER-USER -
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A DOCKER -d {INSIDE}/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-USER -j RETURN
COMMIT
*nat
:DOCKER -
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.31.0.0/24 ! -o docker0 -j MASQUERADE
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 9001 -j DNAT --to-destination {INSIDE}:80
COMMIT
"""
        plain.run("iptables-restore", stdin=rules)
        plain.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=1")  # as our hosts
        self._serve(inside, "0.0.0.0", 80)
        return plain

    def _proxy(self, plain: Any, client: Process) -> None:
        if PROXY is None:
            self.absent["proxy"] = "docker-proxy is not installed (docker.io)"
            return
        flags = f"-proto tcp -host-ip 0.0.0.0 -host-port 9002 -container-ip {INSIDE} -container-port 80"
        told = ["sh", "-c", 'exec "$0" "$@" 3>&1', PROXY, *flags.split()]  # where an engine waits for its "0"
        proxy = Process(plain, told)
        self._made.append(proxy)
        assert proxy.line() == "0\n"
        self.paths["proxy"] = client, PLAIN, 9002

    def _ipvs(self, plain: Any, client: Process) -> None:
        try:
            plain.run("ipvsadm", "-A", "-t", f"{PLAIN}:9003", "-s", "rr")
            plain.run("ipvsadm", "-a", "-t", f"{PLAIN}:9003", "-r", f"{INSIDE}:80", "-m")
        except AssertionError as refused:
            tool = "" if shutil.which("ipvsadm") else "ipvsadm is not installed"
            self.absent["ipvs"] = (
                tool if Path("/proc/net/ip_vs").exists() else f"not in this kernel{tool and ', '}{tool}"
            )
            del refused
            return
        self.paths["ipvs"] = client, PLAIN, 9003

    def _process(self, where: Any, *words: str) -> Process:
        made = Process(where, [sys.executable, PROGRAM, *words], self._cores[words[0] == "serve"])
        self._made.append(made)
        return made

    def _serve(self, where: Any, address: str, port: int) -> None:
        assert self._process(where, "serve", address, str(port)).line() == "listening\n"
