"""Rows of networks that only real hosts can show: single containers in overlay networks, on two hosts and a worker."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import form
from hosts import BUSYBOX, Host, until

WEB = "mkdir -p /tmp/w; hostname > /tmp/w/index.html; exec httpd -f -p 80 -h /tmp/w"


@pytest.fixture(scope="module")
def pair(hosts: list[Host]) -> Iterator[list[Host]]:
    """A manager, another manager, a worker; an attachable network with a service on the second host."""
    form(hosts, managers=2)
    first = hosts[0]
    first.docker("network", "create", "-d", "overlay", "--attachable", "--subnet", "10.91.0.0/24", "open")
    first.docker("network", "create", "-d", "overlay", "shut")
    first.docker(
        "service", "create", "-d", "--name", "web", "--network", "open", "--stop-grace-period", "1s",
        "--constraint", "node.hostname == swarm-2", BUSYBOX, "sh", "-c", WEB,
    )  # fmt: skip
    until("the service", lambda: len(first.running("web")) == 1)
    yield hosts
    for host in hosts:
        left = host.docker("ps", "-aq", "--filter", "name=solo").split()
        if left:
            host.docker("rm", "-f", *left)
    first.docker("service", "rm", "web")


def run(host: Host, name: str, *options: str, command: tuple[str, ...] = ("sh", "-c", WEB)) -> str:
    return host.docker("run", "-d", "--name", name, *options, BUSYBOX, *command)


def inside(host: Host, name: str, *argv: str) -> str:
    return host.docker("exec", name, *argv)


def reaches(host: Host, name: str, url: str) -> str:
    """What answers there. Not by busybox's wget, which crashes where /etc/services is missing."""
    ask = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {url} 80"
    said = inside(host, name, "sh", "-c", ask).splitlines()
    assert said, f"{name} does not reach {url}"
    return said[-1]


def address(host: Host, name: str, network: str = "open") -> str:
    found = json.loads(host.docker("inspect", name))[0]["NetworkSettings"]["Networks"]
    return str(found[network]["IPAddress"])


def restart_daemon(host: Host, meanwhile: Callable[[], object]) -> None:
    """Kill the daemon, with its engine going on."""
    pid = daemon_of(host)
    host.run("kill", "-STOP", pid)
    meanwhile()
    host.run("kill", "-KILL", pid)
    until("another one", lambda: daemon_of(host) not in ("", pid))
    until("it answers", lambda: host.docker("info", "--format", "{{.Swarm.LocalNodeState}}") == "active")


def daemon_of(host: Host) -> str:
    rows = host.run("ps", "-eo", "pid=,args=").splitlines()
    return next((row.split()[0] for row in rows if row.endswith("-m afterswarm.cli.main daemon")), "")


def contained(host: Host, network: str = "open") -> dict[str, Any]:
    return {c["Name"]: c for c in host.json("network", "inspect", network)[0]["Containers"].values()}


@pytest.mark.row("NW-06")
def test_nw_06_run_on_two_hosts(pair: list[Host]) -> None:
    first, _, worker = pair
    run(first, "solo-a", "--network", "open", "--network-alias", "alpha")
    run(worker, "solo-b", "--network", "open")  # not plumbed here until now
    for host, name in ((first, "solo-a"), (worker, "solo-b")):
        until(f"{name} reaches the service by its name", lambda: reaches(host, name, "web"), 15)  # noqa: B023
        assert reaches(host, name, "tasks.web")
    said = inside(first, "solo-a", "hostname")
    for name in ("solo-a", "alpha", said, address(first, "solo-a")):
        assert until(f"{name} from the other host", lambda: reaches(worker, "solo-b", name), 10) == said  # noqa: B023
    assert reaches(first, "solo-a", "solo-b") == inside(worker, "solo-b", "hostname")
    task = pair[1].docker("ps", "-q", "--filter", "label=com.docker.swarm.service.name=web")
    assert reaches(pair[1], task, "solo-a") == said
    assert reaches(pair[1], task, "solo-b")
    assert contained(first)["solo-a"]["IPv4Address"] == f"{address(first, 'solo-a')}/24"
    assert "solo-b" in contained(worker)
    peers = {p["IP"] for p in first.json("network", "inspect", "open")[0]["Peers"]}
    assert {first.address, worker.address} <= peers
    words = first.fails("network", "rm", "open")
    assert "is in use by" in words


@pytest.mark.row("NW-06")
def test_nw_06_not_attachable(pair: list[Host]) -> None:
    first, _, worker = pair
    for host in (first, worker):
        with pytest.raises(AssertionError, match="network shut not manually attachable"):
            run(host, "solo-x", "--network", "shut")
        with pytest.raises(AssertionError, match="network nowhere not found"):
            host.docker("run", "--rm", "--network", "nowhere", BUSYBOX, "true")


@pytest.mark.row("NW-06")
def test_nw_06_connect_a_running_container(pair: list[Host]) -> None:
    first, _, worker = pair
    for host, name in ((first, "solo-c"), (worker, "solo-d")):
        run(host, name)
        assert "open" not in json.loads(host.docker("inspect", name))[0]["NetworkSettings"]["Networks"]
        host.docker("network", "connect", "--alias", f"{name}-too", "open", name)
        until(f"{name} reaches the service by its name", lambda: reaches(host, name, "web"), 10)  # noqa: B023
    assert until("by alias", lambda: reaches(first, "solo-c", "solo-d-too"), 10) == inside(worker, "solo-d", "hostname")
    words = first.fails("network", "connect", "open", "solo-c")
    assert "already exists in network" in words
    given = address(worker, "solo-d")
    worker.docker("network", "disconnect", "open", "solo-d")
    assert "solo-d" not in contained(first)
    until("its name is gone", lambda: "bad address" in unknown(first, "solo-c", "solo-d-too"), 10)
    run(first, "solo-e", "--network", "open", "--ip", given)  # which was given back
    assert address(first, "solo-e") == given
    with pytest.raises(AssertionError, match="Address already in use"):
        run(worker, "solo-f", "--network", "open", "--ip", given)


def unknown(host: Host, name: str, other: str) -> str:
    return inside(host, name, "sh", "-c", f"nc -w 2 {other} 80 < /dev/null 2>&1 || true")


@pytest.mark.row("NW-06")
def test_nw_06_the_daemon_is_away(pair: list[Host]) -> None:
    """A container that ended meanwhile gives its address back; one that stayed keeps it, and what it reaches."""
    first, _, worker = pair
    run(worker, "solo-stays", "--network", "open")
    run(worker, "solo-goes", "--network", "open")
    until("both are known", lambda: all(reaches(first, "solo-a", n) for n in ("solo-goes", "solo-stays")), 10)
    free = address(worker, "solo-goes")
    restart_daemon(worker, meanwhile=lambda: worker.docker("rm", "-f", "solo-goes", engine=True))
    until("it is given back", lambda: run(first, "solo-new", "--network", "open", "--ip", free), 20, every=1)
    assert reaches(worker, "solo-stays", "web")
    assert reaches(first, "solo-a", "solo-stays")
    assert reaches(worker, "solo-stays", "solo-new") == inside(first, "solo-new", "hostname")
