"""Encrypted and internal networks on real hosts: what the wire shows, and where a container gets."""

from __future__ import annotations

import signal
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest
from hosts import BUSYBOX, Host, restart_daemon, until

from afterswarm.lab.hosts import GATEWAY

ALL = 3  # every protocol
MARK = "nobody-on-the-wire-may-read-this"
ASK = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 2 {} 80 | busybox tail -n 1"
WEB = f"mkdir /tmp/w; echo {MARK} > /tmp/w/index.html; exec httpd -f -p 80 -h /tmp/w"


def made(host: Host, name: str, network: str, *options: str, at: int) -> None:
    where = ("--constraint", f"node.hostname == swarm-{at}", "--stop-grace-period", "1s", "--stop-signal", "SIGKILL")
    host.docker(
        "service", "create", "-d", "--name", name, "--network", network, *where, *options, BUSYBOX, "sh", "-c", WEB
    )


def inside(host: Host, service: str, *command: str) -> str:
    label = f"label=com.docker.swarm.service.name={service}"
    [container, *_] = host.docker("ps", "-q", "--filter", label).split()
    return host.docker("exec", container, *command)


@pytest.fixture(scope="module")
def two(swarm: list[Host]) -> Iterator[list[Host]]:
    """A service on each of two hosts, in a network in the clear and in an encrypted one."""
    first = swarm[0]
    for name, options in (("clear", ()), ("sealed", ("--opt", "encrypted"))):
        first.docker("network", "create", "-d", "overlay", *options, name)
        for at in (1, 2):
            made(first, f"{name}{at}", name, at=at)
    for name in ("clear1", "clear2", "sealed1", "sealed2"):
        until(f"{name} runs", lambda: len(first.running(name)) == 1)  # noqa: B023
    yield swarm
    first.docker("service", "rm", "clear1", "clear2", "sealed1", "sealed2")
    for name in ("clear", "sealed"):
        until(f"{name} can go", lambda: first.docker("network", "rm", name))  # noqa: B023


def virtual(host: Host, service: str) -> str:
    [shown] = host.json("service", "inspect", service)
    [address] = shown["Endpoint"]["VirtualIPs"]
    return str(address["Addr"].partition("/")[0])


def on_the_wire(first: Host, name: str) -> tuple[str, bool]:
    """What the other host's service answers, and whether the cable of this host shows it."""
    with closing(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL))) as capture:
        capture.bind((first.place.link, 0))
        capture.settimeout(0)
        asked = ASK.format(virtual(first, f"{name}2"))
        said = until("it answers", lambda: inside(first, f"{name}1", "sh", "-c", asked), 20)
        seen = False
        with suppress(BlockingIOError):
            while True:
                seen |= MARK.encode() in capture.recv(65535)
    return said, seen


@pytest.mark.row("NW-02", client="docker on real hosts")
def test_nw_02_encrypted(two: list[Host]) -> None:
    first = two[0]
    assert on_the_wire(first, "clear") == (MARK, True)
    assert on_the_wire(first, "sealed") == (MARK, False)
    [shown] = first.json("network", "inspect", "sealed")
    assert shown["Options"]["encrypted"] == ""
    assert "mtu 1350" in inside(first, "sealed1", "ip", "link", "show", "eth0")
    for host in two[:2]:
        assert "latest handshake" in host.run("wg", "show", "as-wireguard")
        assert host.run("stat", "-c", "%a", "/var/lib/afterswarm/wireguard.key") == "600"
    assert "as-wireguard" not in two[2].run("ip", "link"), "nothing of it runs where nobody needs it"


def test_a_restarted_daemon_cuts_no_encrypted_connection(two: list[Host]) -> None:
    first = two[0]
    shown = first.run("wg", "show", "as-wireguard", "public-key")
    device = first.run("ip", "-o", "link", "show", "as-wireguard").partition(":")[0]
    asked = ASK.format(virtual(first, "sealed2"))
    script = f"(for i in 1 2 3 4 5 6 7 8 9 10 11 12; do {asked} || exit 1; sleep 0.5; done) > /tmp/said 2>&1 &"
    inside(first, "sealed1", "sh", "-c", script)
    restart_daemon(first, signal.SIGTERM)
    until("all have answered", lambda: inside(first, "sealed1", "cat", "/tmp/said").split() == [MARK] * 12, 20)
    assert first.run("wg", "show", "as-wireguard", "public-key") == shown
    assert first.run("ip", "-o", "link", "show", "as-wireguard").partition(":")[0] == device


@pytest.mark.row("NW-01", client="docker on real hosts")
def test_an_internal_network_has_no_way_out_and_its_ports_answer(swarm: list[Host]) -> None:
    """Not even by the ingress network, which the published one is in."""
    first, second, _ = swarm
    first.docker("network", "create", "-d", "overlay", "--internal", "inner")
    first.docker("network", "create", "-d", "overlay", "outer")
    try:
        made(first, "within", "inner", at=1)
        made(first, "shown", "inner", "-p", "8095:80", at=2)
        made(first, "free", "outer", at=1)
        for name in ("within", "shown", "free"):
            until(f"{name} runs", lambda: len(first.running(name)) == 1)  # noqa: B023
        for host in swarm:
            until("it answers", lambda: fetched(host.address, 8095) == MARK, 20)  # noqa: B023
        assert tried(first, "within", virtual_in(first, "shown", "inner"), 80)
        assert tried(first, "within", "shown", 80), "and by its name"
        ways = ((GATEWAY, 5000), (first.address, 2377), (second.address, 2377), (second.address, 8095))
        for where, port in ways:
            assert tried(first, "free", where, port), f"{where}:{port}: the way is there"
            assert not tried(first, "within", where, port), f"{where}:{port}"
            assert not tried(second, "shown", where, port), f"{where}:{port}"
        other = virtual_in(first, "free", "outer")
        assert not tried(first, "within", other, 80)
        assert not tried(first, "within", task_address(first, "free"), 80)
    finally:
        first.docker("service", "rm", "within", "shown", "free")
        for name in ("inner", "outer"):
            until(f"{name} can go", lambda: first.docker("network", "rm", name))  # noqa: B023


def fetched(address: str, port: int) -> str:
    with urllib.request.urlopen(f"http://{address}:{port}/", timeout=2) as answer:
        return str(answer.read().decode().strip())


def tried(host: Host, service: str, address: str, port: int) -> bool:
    """Whether a connection is made."""
    said = inside(host, service, "sh", "-c", f"busybox nc -w 1 {address} {port} < /dev/null; echo $?")
    return said.split()[-1] == "0"


def virtual_in(host: Host, service: str, network: str) -> str:
    key = host.docker("network", "inspect", "-f", "{{.Id}}", network)
    [shown] = host.json("service", "inspect", service)
    [found] = [v["Addr"] for v in shown["Endpoint"]["VirtualIPs"] if v["NetworkID"] == key]
    return str(found.partition("/")[0])


def task_address(host: Host, service: str) -> str:
    label = f"label=com.docker.swarm.service.name={service}"
    [found] = host.json("inspect", host.docker("ps", "-q", "--filter", label))
    return str(next(iter(found["NetworkSettings"]["Networks"].values()))["IPAddress"])
