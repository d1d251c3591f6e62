"""What agents expect of a kernel, asked of the one in memory and of real namespaces; and the traffic through those."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import kernel_lab as net
import msgspec
import pytest
from msgspec.structs import replace

from afterswarm.core.dataplane import container_rules, host_rules, paths, vxlan
from afterswarm.core.dataplane.ruleset import NOTHING, Ruleset
from afterswarm.model import repair
from afterswarm.model.session import Route
from afterswarm.ports import Kernel
from afterswarm.sim.kernel import SimKernel

real = [pytest.mark.real, pytest.mark.skipif(not net.is_root(), reason="needs root")]


@pytest.fixture(scope="module")
def lab() -> Iterator[Any]:
    made = net.Lab()
    yield made
    made.close()


def links(node: str, *routes: Route) -> list[dict[str, Any]]:
    wanted = vxlan.links(node_id=node, networks=net.NETWORKS, routes=routes, peers=net.PEERS)
    return [msgspec.to_builtins(link) for link in wanted]


def rules(node: str, *routes: Route, silent: tuple[str, ...] = ()) -> Ruleset:
    return host_rules.host(node_id=node, networks=net.NETWORKS, routes=routes, peers=net.PEERS, silent=silent)


def ways_back(node: str) -> list[dict[str, Any]]:
    return [msgspec.to_builtins(each) for each in paths.returns(net.NETWORKS, node)]


def vips(task_id: str, *routes: Route, silent: tuple[str, ...] = ()) -> Ruleset:
    attached = net.target(int(task_id[1:]), "").addresses
    return container_rules.container(
        task_id=task_id,
        attached=attached,
        networks=net.NETWORKS,
        routes=routes,
        silent=silent,
        source=attached[net.BACKEND.id],
    )


# ---- for both ----------------------------------------------------------------------------------------------------


class Case:
    def __init__(self, kernel: Kernel, pid: int, look: Callable[[], object], damage: Callable[[], object]) -> None:
        self.kernel = kernel
        self.damage = damage  # take the devices, the rules and the ways back away
        self.pid = pid  # of a container
        self.look = look  # everything the kernel holds


@pytest.fixture(params=["sim", pytest.param("real", marks=real)])
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    if request.param == "sim":
        kernel = SimKernel(processes={42})

        def lose() -> None:
            for held in (kernel.rulesets, kernel.links, kernel.returns):
                held.clear()

        yield Case(kernel, 42, lambda: (dict(kernel.rulesets), dict(kernel.links), list(kernel.returns)), lose)
        return
    made = request.getfixturevalue("lab")
    where = request.getfixturevalue("where")

    def look() -> object:
        host = made.hosts["n1"]
        shown = [net.rules(host), net.rules(where)]
        found = json.loads(host.run("ip", "-j", "link", "show"))
        devices = [[link.get(key) for key in ("ifindex", "ifname", "mtu", "master", "address")] for link in found]
        forwarding = [line for line in host.run("bridge", "fdb").splitlines() if " dst " in line]
        routing = [host.run("ip", "rule"), host.run("ip", "route", "show", "table", "all", "default")]
        return shown, devices, sorted(forwarding), routing

    def damage() -> None:
        made.hosts["n1"].run("nft", "delete", "table", "inet", "afterswarm")
        where.run("nft", "flush", "table", "inet", "afterswarm")
        for link in links("n1"):
            made.hosts["n1"].run("ip", "link", "del", link["name"])
        made.hosts["n1"].run("ip", "rule", "del", "priority", str(paths.PRIORITY))

    yield Case(made.kernels["n1"], where.pid, look, damage)


async def test_saying_it_twice_changes_nothing(case: Case) -> None:
    web = net.web(net.target(1, "n1"), net.target(2, "n2"))

    async def say() -> None:
        await case.kernel.sync_links(links("n1", web))
        await case.kernel.sync_returns(ways_back("n1"))
        await case.kernel.apply(rules("n1", web))
        await case.kernel.apply(vips("t1", web), netns_pid=case.pid)

    await say()
    before = case.look()
    await say()
    assert case.look() == before


async def test_what_somebody_else_changes_is_said_and_put_right(case: Case) -> None:
    web = net.web(net.target(1, "n1"), net.target(2, "n2"))

    async def say() -> list[repair.Difference]:
        found = [*await case.kernel.sync_links(links("n1", web)), *await case.kernel.sync_returns(ways_back("n1"))]
        found += await case.kernel.apply(rules("n1", web))
        return found + await case.kernel.apply(vips("t1", web), netns_pid=case.pid)

    await say()
    before = case.look()
    assert await say() == []
    case.damage()
    assert case.look() != before
    assert {found.kind for found in await say()} == {repair.LINKS, repair.ROUTES, repair.RULES}
    assert await say() == []


async def test_what_is_no_longer_wanted_goes(case: Case) -> None:
    await case.kernel.sync_links(links("n1"))
    await case.kernel.sync_returns([])
    await case.kernel.apply(NOTHING)
    before = case.look()
    await case.kernel.sync_returns(ways_back("n1"))
    await case.kernel.sync_links(links("n1", net.web(net.target(2, "n2"))))
    await case.kernel.apply(rules("n1", net.web(net.target(2, "n2"))))
    assert case.look() != before
    await case.kernel.sync_links(links("n1"))
    await case.kernel.sync_returns([])
    await case.kernel.apply(NOTHING)
    assert case.look() == before


async def test_a_container_that_has_gone(case: Case) -> None:
    gone = 4_194_303  # above the default of pid_max on small machines, and unused on others
    with pytest.raises(ProcessLookupError):
        await case.kernel.apply(vips("t1"), netns_pid=gone)
    with pytest.raises(ProcessLookupError):
        await case.kernel.forget_flows(["10.0.0.1"], netns_pid=gone)


async def test_flows_that_are_not_there_are_forgotten_easily(case: Case) -> None:
    await case.kernel.forget_flows([])
    await case.kernel.forget_flows(["10.200.0.77"])
    await case.kernel.forget_flows(["10.200.0.77"], netns_pid=case.pid)


@pytest.fixture
def where() -> Iterator[Any]:
    made = net.Namespace()
    yield made
    made.close()


# ---- the real one ------------------------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.skipif(not net.is_root(), reason="needs root")
class TestReal:
    async def test_a_refused_ruleset_says_why_and_changes_nothing(self, lab: Any) -> None:
        await lab.kernels["n1"].apply(rules("n1", net.web(net.target(1, "n1"))))
        before = net.rules(lab.hosts["n1"])
        with pytest.raises(OSError, match="nftables refused"):
            await lab.kernels["n1"].apply(Ruleset(shape="nonsense\n"))
        assert net.rules(lab.hosts["n1"]) == before

    async def test_what_others_broke_is_repaired_and_theirs_stays(self, lab: Any) -> None:
        host, kernel = lab.hosts["n1"], lab.kernels["n1"]
        web = net.web(net.target(1, "n1"), net.target(2, "n2"))

        def look() -> list[str]:
            lines = host.run("bridge", "fdb", "show", "dev", "asxbackend000").splitlines()
            return [*net.rules(host, "table", "inet", "afterswarm"), *sorted(x for x in lines if "dst" in x)]

        await kernel.sync_links(links("n1", web))
        await kernel.apply(rules("n1", web))
        before = look()
        host.run("nft", "add table ip other")
        host.run("nft", "flush chain inet afterswarm mesh")
        host.run("ip", "link", "set", "asxbackend000", "nomaster")
        host.run("bridge", "fdb", "del", "02:42:0a:c8:01:0c", "dev", "asxbackend000", "dst", "10.177.0.2")
        host.run("ip", "link", "del", "asxingress000")
        host.run("iptables", "-F", "DOCKER-USER")
        assert look() != before
        found = [*await kernel.sync_links(links("n1", web)), *await kernel.apply(rules("n1", web))]
        assert {each.kind for each in found} == {repair.LINKS, repair.FDB, repair.FIREWALL, repair.RULES}, found
        assert (repair.RULES, "inet chain mesh was changed") in found
        assert look() == before
        assert "asxbackend000" in host.run("ip", "link", "show", "master", "aswbackend000")
        assert "asxingress000" in host.run("ip", "link", "show", "master", "aswingress000")
        assert "-j AFTERSWARM" in host.run("iptables", "-S", "DOCKER-USER")
        host.run("nft", "delete table ip other")  # fails unless it is there

    async def test_the_hosts_own_namespace_is_not_taken_for_a_container(self, lab: Any) -> None:
        host = lab.hosts["n1"]
        await lab.kernels["n1"].apply(rules("n1", net.web(net.target(1, "n1"))))
        before = net.rules(host)
        await lab.kernels["n1"].apply(vips("t1"), netns_pid=host.pid)
        assert net.rules(host) == before

    async def test_traffic(self, lab: Any) -> None:
        """One replica on each host, a third container without one; every way in, then every way it may fail."""
        one, two, other = lab.container("n1", 1), lab.container("n2", 2), lab.container("n1", 3)
        for name, where in (("one", one), ("two", two)):
            lab.serve(name, where)
        inner = ((one, "n1", "t1"), (two, "n2", "t2"), (other, "n1", "t3"))

        async def say(*routes: Route, silent: tuple[str, ...] = ()) -> None:
            for node, kernel in lab.kernels.items():
                await kernel.sync_links(links(node, *routes))
                await kernel.apply(rules(node, *routes, silent=silent))
                await kernel.sync_returns(ways_back(node))
            for where, node, task_id in inner:
                await lab.kernels[node].apply(vips(task_id, *routes, silent=silent), netns_pid=where.pid)

        both = net.web(net.target(1, "n1"), net.target(2, "n2"))
        await say(both)
        for node, address in (("n1", "10.177.0.1"), ("n2", "10.177.0.2")):
            host = lab.hosts[node]
            assert net.who(lab.outside, address, 8080) == {"one", "two"}, f"from outside through {node}"
            assert net.who(host, address, 8080) == {"one", "two"}, f"{node} to itself"
            assert net.who(host, "127.0.0.1", 8080) == {"one", "two"}, f"{node} on its loopback"
            for where, _, task_id in inner:
                assert net.who(where, address, 8080) == {"one", "two"}, f"from container {task_id} through {node}"
            answers = {net.ask(lab.outside, address, 8080, udp=True).split()[0] for _ in range(4)}
            assert answers == {"one", "two"}, f"UDP through {node}"
        for where, _, task_id in inner:
            assert net.who(where, net.VIP, 80) == {"one", "two"}, f"virtual address from {task_id}"

        # the client's address is kept: inside the overlay, and through either host to either replica
        assert {net.ask(other, net.VIP, 80) for _ in range(4)} == {"one 10.200.1.13", "two 10.200.1.13"}
        for address in ("10.177.0.1", "10.177.0.2"):
            for udp in (False, True):
                seen = {net.ask(lab.outside, address, 8080, udp=udp) for _ in range(4)}
                assert seen == {"one 10.177.0.9", "two 10.177.0.9"}, f"through {address}, udp: {udp}"
        # so is another host's, but where the target's own host is the client
        assert {net.ask(lab.hosts["n1"], "10.177.0.2", 8080) for _ in range(4)} == {
            "one 10.200.0.253",
            "two 10.177.0.1",
        }

        # a service may ask for the address of the host that was dialled
        await say(replace(both, masquerade=True))
        assert {net.ask(lab.outside, "10.177.0.1", 8080) for _ in range(4)} == {"one 10.177.0.9", "two 10.200.0.254"}
        await say(both)

        # nobody on the ingress network reaches the host's loopback through the setting that 127.0.0.1:8080 needs
        with lab.hosts["n1"].socket() as private:
            private.bind(("127.0.0.1", 2222))
            private.listen()
            other.run("ip", "route", "add", "127.0.0.0/8", "via", net.INGRESS.gateways["n1"], "dev", "eth1")
            other.run("ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
            other.run("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
            with pytest.raises(OSError, match=r"timed out|refused|Invalid"):
                net.ask(other, "127.0.0.1", 2222, timeout=0.5)

        # one target is gone: all to the other; and the only one may be the caller itself
        await say(net.web(net.target(1, "n1")))
        assert net.who(lab.outside, "10.177.0.2", 8080) == {"one"}
        assert net.who(one, net.VIP, 80) == {"one"}
        assert net.who(two, net.VIP, 80) == {"one"}

        # nobody is ready: a refusal at once
        await say(net.web(net.target(1, "n1", ready=False)))
        for where, address, port in ((lab.outside, "10.177.0.2", 8080), (two, net.VIP, 80), (one, "10.177.0.1", 8080)):
            started = time.monotonic()
            with pytest.raises(ConnectionRefusedError):
                net.ask(where, address, port)
            assert time.monotonic() - started < 0.5

        # a host dies while connections to it are being made: they get to the other as soon as it is known
        await say(net.web(net.target(2, "n2")))
        lab.wire.run("ip", "link", "set", "v2", "down")
        said: list[str] = []
        clients = [
            threading.Thread(target=lambda a=a: said.append(net.ask(*a, timeout=8)))
            for a in ((lab.outside, "10.177.0.1", 8080), (other, net.VIP, 80))
        ]
        for client in clients:
            client.start()
        await asyncio.sleep(0.3)
        await say(both, silent=("n2",))
        gone = net.target(2, "n2").addresses.values()
        await lab.kernels["n1"].forget_flows(gone)
        await lab.kernels["n1"].forget_flows(gone, netns_pid=other.pid)
        for client in clients:
            client.join()
        assert [answer.split()[0] for answer in said] == ["one", "one"]
        assert net.who(lab.outside, "10.177.0.1", 8080) == {"one"}

        # and is back
        lab.wire.run("ip", "link", "set", "v2", "up")
        await say(both)
        await lab.heard("n1", "n2")
        assert net.who(lab.outside, "10.177.0.1", 8080, times=8) == {"one", "two"}

    async def test_forged_packets_of_a_tunnel_are_not_taken(self, lab: Any) -> None:
        """Whoever reaches the port would otherwise be in every network. From a host of the swarm they are taken."""
        container = lab.container("n1", 7)
        web = net.web(net.target(7, "n1"))
        await lab.kernels["n1"].sync_links(links("n1", web))
        await lab.kernels["n1"].apply(rules("n1", web))
        packet = net.in_tunnel(net.BACKEND, "10.200.1.99", "10.200.1.17", 9999, b"hello")
        with container.socket(net.socket.SOCK_DGRAM) as inner:
            inner.bind(("0.0.0.0", 9999))
            inner.settimeout(0.5)
            for where, taken in ((lab.outside, False), (lab.hosts["n2"], True)):
                with where.socket(net.socket.SOCK_DGRAM) as sender:
                    sender.sendto(packet, ("10.177.0.1", vxlan.PORT))
                if taken:
                    assert inner.recv(99) == b"hello"
                else:
                    with pytest.raises(TimeoutError):
                        inner.recv(99)

    async def test_an_address_that_moves_is_found_at_once(self, lab: Any) -> None:
        """From the other host to this one and back: neither a bridge nor a tunnel clings to where it was."""
        client = lab.container("n1", 6)
        for number, node in enumerate(("n2", "n1", "n2")):
            container = lab.container(node, 5)
            server = lab.serve(node, container)
            for host, kernel in lab.kernels.items():
                await kernel.sync_links(links(host, net.web(net.target(5, node), net.target(6, "n1"))))
            assert net.ask(client, "10.200.1.15", 80, timeout=1) == f"{node} 10.200.1.16", f"move {number}"
            server.close()
            container.close()

    async def test_only_flows_to_the_named_addresses_are_forgotten(self, lab: Any, where: Any) -> None:
        where.run("ip", "link", "add", "d0", "type", "bridge")
        where.run("ip", "addr", "add", "10.9.0.1/24", "dev", "d0")
        where.run("ip", "link", "set", "d0", "up")
        where.run(
            "nft", "add table ip t; add chain ip t c { type filter hook output priority 0; ct state new accept; }"
        )
        for host in range(2, 202):
            with where.socket(net.socket.SOCK_DGRAM) as out:
                out.sendto(b"?", (f"10.9.0.{host}", 9))

        def known() -> set[str]:
            lines = where.run("conntrack", "-L").splitlines()
            return {
                w.removeprefix("dst=")
                for line in lines
                for w in line.split()
                if w.startswith("dst=10.9.0.") and w != "dst=10.9.0.1"
            }

        before = known()
        gone = {f"10.9.0.{host}" for host in range(2, 102)}
        await lab.kernels["n1"].forget_flows(gone, netns_pid=where.pid)
        assert known() == before - gone

    async def test_what_was_answered_is_not_given_up(self, lab: Any, where: Any) -> None:
        where.run("ip", "link", "add", "d0", "type", "bridge")
        where.run("ip", "addr", "add", "10.9.0.1/24", "dev", "d0")
        where.run("ip", "link", "set", "d0", "up")
        where.run(
            "nft", "add table ip t; add chain ip t c { type filter hook output priority 0; ct state new accept; }"
        )
        with where.socket(net.socket.SOCK_DGRAM) as server, where.socket(net.socket.SOCK_DGRAM) as client:
            server.bind(("10.9.0.1", 99))
            client.sendto(b"?", ("10.9.0.2", 99))
            client.sendto(b"?", ("10.9.0.1", 99))
            server.sendto(b"!", server.recvfrom(9)[1])

        def known() -> set[str]:
            return set(re.findall(r"dst=(10\.9\.0\.\d+) sport=\d+ dport=99 ", where.run("conntrack", "-L")))

        assert known() == {"10.9.0.1", "10.9.0.2"}
        await lab.kernels["n1"].forget_flows(known(), netns_pid=where.pid, unanswered=True)
        assert known() == {"10.9.0.1"}
        await lab.kernels["n1"].forget_flows(known(), netns_pid=where.pid)
        assert known() == set()

    async def test_rules_of_forty_containers_change_in_a_blink(self, lab: Any) -> None:
        containers = [net.Namespace() for _ in range(40)]
        try:
            await lab.kernels["n1"].apply(vips("t1", net.web(net.target(1, "n1"))), netns_pid=containers[0].pid)
            started = time.monotonic()
            for number, where in enumerate(containers):
                text = vips(f"t{number}", net.web(net.target(2, "n2")))
                await lab.kernels["n1"].apply(text, netns_pid=where.pid)
            assert time.monotonic() - started < 1.0  # 0.1 s on an idle machine
        finally:
            for where in containers:
                where.close()

    async def test_without_docker_user_there_is_nothing_to_pass(self, where: Any) -> None:
        kernel = net.HostKernel(where)
        try:
            await kernel.sync_links(links("n1"))  # no bridge either: its links wait
            assert "asx" not in where.run("ip", "link")
            assert "AFTERSWARM" not in where.run("iptables", "-S")
        finally:
            kernel.close()

    @pytest.mark.usefixtures("lab")
    def test_nothing_of_the_machine_itself_was_touched(self) -> None:
        links_here = subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout
        assert "asxingress000" not in links_here
