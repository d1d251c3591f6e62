"""Networks of both families, and published ports on hosts' IPv6 addresses, on real kernels and engines."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest
from hosts import BUSYBOX, DockerFailed, Host, until

from afterswarm.lab.hosts import GATEWAY6

CLIENT = "cgi-bin/client"
WEB = (
    f"mkdir -p /tmp/w/cgi-bin; hostname > /tmp/w/index.html; echo '#!/bin/sh' > /tmp/w/{CLIENT}; "
    f"echo 'echo; echo $REMOTE_ADDR' >> /tmp/w/{CLIENT}; busybox chmod +x /tmp/w/{CLIENT}; "
    "exec httpd -f -p 80 -h /tmp/w"
)

GET = r"printf 'GET %s HTTP/1.0\r\n\r\n' $2 | busybox nc -w 3 $1 80 | busybox tail -n 1"


@pytest.fixture(scope="module")
def app(swarm: list[Host]) -> Iterator[list[Host]]:
    """`web` on two hosts in a dual network, `plain` on one in a network of IPv4 alone, `ask` everywhere in both."""
    first = swarm[0]
    first.docker("network", "create", "-d", "overlay", "--ipv6", "six")
    first.docker("network", "create", "-d", "overlay", "four")
    quiet = ("--detach", "--stop-grace-period", "1s")
    there = ("--constraint", "node.hostname != swarm-1", "--network", "six", "--publish", "8080:80")
    first.docker("service", "create", *quiet, "--name", "web", "--mode", "global", *there, BUSYBOX, "sh", "-c", WEB)
    there = ("--constraint", "node.hostname == swarm-2", "--network", "four", "--publish", "8081:80")
    first.docker("service", "create", *quiet, "--name", "plain", *there, BUSYBOX, "sh", "-c", WEB)
    both = ("--network", "six", "--network", "four")
    first.docker("service", "create", *quiet, "--name", "ask", "--mode", "global", *both, BUSYBOX)
    for service, count in (("web", 2), ("plain", 1), ("ask", 3)):
        until(f"{count} running of {service}", lambda: len(first.running(service)) == count)  # noqa: B023
    yield swarm
    first.docker("service", "rm", "web", "plain", "ask")
    for network in ("six", "four"):
        until(f"network {network} is gone", lambda: removed(first, network))  # noqa: B023


def removed(host: Host, network: str) -> bool:
    try:
        host.docker("network", "rm", network)
    except DockerFailed as failed:
        return "not found" in failed.words or "No such network" in failed.words
    return True


def container(host: Host, service: str) -> str:
    return host.docker("ps", "-q", "--no-trunc", "--filter", f"label=com.docker.swarm.service.name={service}")


def inside(host: Host, *argv: str) -> str:
    return host.docker("exec", container(host, "ask"), *argv)


def get(address: str, port: int, path: str = "") -> str:
    with socket.create_connection((address, port), timeout=5) as client:
        client.sendall(f"GET /{path} HTTP/1.0\r\n\r\n".encode())
        said = b"".join(iter(lambda: client.recv(4096), b""))
    return said.decode().partition("\r\n\r\n")[2].strip() or said.decode().splitlines()[-1].strip()


def test_everyone_has_both_addresses_and_docker_shows_them(app: list[Host]) -> None:
    first, second = app[:2]
    [shown] = first.json("network", "inspect", "six")
    pools = [pool["Subnet"] for pool in shown["IPAM"]["Config"]]
    assert shown["EnableIPv6"] is True
    assert [":" in pool for pool in pools] == [False, True]
    [found] = second.json("inspect", container(second, "web"))
    place = found["NetworkSettings"]["Networks"]["six"]
    assert place["GlobalIPv6Address"].startswith(pools[1].partition("::")[0])
    task = found["Config"]["Labels"]["com.docker.swarm.task.id"]
    [attachments] = [t["NetworksAttachments"] for t in first.json("inspect", "--type", "task", task)]
    addresses = [a for n in attachments for a in n["Addresses"]]
    assert f"{place['GlobalIPv6Address']}/64" in addresses
    assert json.dumps(shown).count(":") > 0


def test_names_and_virtual_addresses(app: list[Host]) -> None:
    first = app[0]
    [web] = first.json("service", "inspect", "web")
    virtual = [ip["Addr"].partition("/")[0] for ip in web["Endpoint"]["VirtualIPs"]]
    [six] = [address for address in virtual if ":" in address]
    assert six in inside(first, "nslookup", "-type=aaaa", "web")
    names = {inside(first, "sh", "-c", GET, "sh", six, "/") for _ in range(4)}
    assert len(names) == 2, "both tasks, on other hosts"
    own = {a for a in inside(first, "ip", "-6", "-o", "addr", "show", "scope", "global").split() if "/64" in a}
    client = inside(first, "sh", "-c", GET, "sh", six, f"/{CLIENT}")
    assert f"{client.strip('[]')}/64" in own


def test_published_ports_keep_the_client(app: list[Host]) -> None:
    """Through hosts with and without a replica; also of a task whose own networks have no IPv6."""
    for host in app:
        assert len({get(host.place.address6, 8080) for _ in range(4)}) == 2, host.name
        for port in (8080, 8081):
            assert get(host.place.address6, port, CLIENT).strip("[]") == GATEWAY6, f"{host.name}, port {port}"
