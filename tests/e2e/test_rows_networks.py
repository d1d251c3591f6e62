"""Rows of networks that only real hosts can show: single containers in overlay networks, on two hosts and a worker."""

from __future__ import annotations

import json
import subprocess
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


def remove_ingress(host: Host, name: str) -> str:
    """The command line asks whether one is sure; what it says then."""
    argv = [host.client, "-H", f"unix://{host.place.socket}", "network", "rm", name]
    done = subprocess.run(argv, input="y\n", text=True, check=False, capture_output=True, timeout=60)
    return done.stdout + done.stderr


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


@pytest.fixture(scope="module")
def served(pair: list[Host]) -> Iterator[list[Host]]:
    """Services in many kinds of networks, made at once; they are waited for where they are looked at."""
    first = pair[0]
    for host in pair:
        host.docker("network", "create", "--config-only", "--subnet", "192.168.55.0/24", "conf")
    driver = "com.docker.network.driver"
    for options in (
        ("-d", "overlay", "-o", f"{driver}.mtu=1300", "-o", f"{driver}.overlay.vxlanid_list=7777", "tuned"),
        ("-d", "overlay", "--internal", "inner"),
        ("-d", "bridge", "--scope", "swarm", "--config-from", "conf", "--attachable", "lan"),
    ):
        first.docker("network", "create", *options)
    there = ("--stop-grace-period", "1s", "--constraint")
    second, third = (f"node.hostname == swarm-{n}" for n in (2, 3))
    web = (BUSYBOX, "sh", "-c", WEB)
    for options in (
        ("named", *there, second, "--network", "name=open,alias=other", "--hostname", "box-{{.Task.Slot}}", *web),
        ("rr", *there, third, "--network", "open", "--endpoint-mode", "dnsrr", "--replicas", "2", *web),
        ("tuned", *there, third, "--network", "tuned", *web),
        ("inner", *there, third, "--network", "inner", *web),
        ("onlan", *there, third, "--network", "lan", *web),
        ("onhost", *there, third, "--network", "host", BUSYBOX, "sleep", "1000"),
        ("out", *there, third, "-p", "published=8090,target=80,mode=host", *web),
    ):
        first.docker("service", "create", "-d", "--name", *options)
    yield pair
    first.docker("service", "rm", "named", "rr", "tuned", "inner", "onlan", "onhost", "out")


def started(host: Host, at: Host, service: str, count: int = 1) -> str:
    """The first container of a service, on `at`, once `count` tasks run."""
    until(f"{service} runs", lambda: len(host.running(service)) == count, 30)
    return at.docker("ps", "-q", "--filter", f"label=com.docker.swarm.service.name={service}").split()[0]


@pytest.mark.row("NW-10", "NW-09", "NW-08", client="docker on real hosts")
def test_nw_10_names(served: list[Host]) -> None:
    first, second, third = served
    box = started(first, second, "named")
    started(first, third, "rr", 2)
    run(third, "solo-asks", "--network", "open")

    def asked(name: str) -> set[str]:
        said = inside(third, "solo-asks", "nslookup", name).partition("Name:")[2]
        return {word for word in said.split() if word.startswith("10.91.0.")}

    [task] = first.json("inspect", "--type", "task", first.docker("service", "ps", "-q", "named"))
    [own] = [a["Addresses"][0].partition("/")[0] for a in task["NetworksAttachments"]]
    [shown] = first.json("service", "inspect", "named")
    [virtual] = [v["Addr"].partition("/")[0] for v in shown["Endpoint"]["VirtualIPs"]]
    until("the names are there", lambda: asked("named") == {virtual}, 10)
    assert asked("other") == {virtual}
    for name in ("tasks.named", f"named.1.{task['ID']}", "box-1", box[:12]):
        assert until(f"{name}", lambda: asked(name), 5) == {own}  # noqa: B023
    assert inside(second, box, "hostname") == "box-1"
    assert len(asked("rr")) == 2
    assert asked("rr") == asked("tasks.rr")


@pytest.mark.row("NW-15", "NW-01", client="docker on real hosts")
def test_nw_15_the_way_out(served: list[Host]) -> None:
    """From an overlay network to the world, by way of the host; not from an internal one."""
    first, _, third = served
    out = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {first.address} 2377; echo $?"
    open_, inner = started(first, third, "tuned"), started(first, third, "inner")
    assert inside(third, open_, "sh", "-c", out).endswith("0")
    assert inside(third, inner, "sh", "-c", out + "; true").endswith("1")


@pytest.mark.row("NW-02", client="docker on real hosts")
def test_nw_02_mtu_and_vxlan_number(served: list[Host]) -> None:
    """The option is the MTU of what carries the network, as with Docker: VXLAN takes 50 bytes of it."""
    first, _, third = served
    assert "mtu 1250" in inside(third, started(first, third, "tuned"), "ip", "link", "show", "eth0")
    devices = third.run("ip", "-d", "link", "show", "type", "vxlan")
    assert "vxlan id 7777" in devices


@pytest.mark.row("NW-07", client="docker on real hosts")
def test_nw_07_networks_of_each_host(served: list[Host]) -> None:
    first, _, third = served
    task = started(first, third, "onlan")
    [found] = third.json("inspect", task)
    assert found["NetworkSettings"]["Networks"]["lan"]["IPAddress"].startswith("192.168.55.")
    run(third, "solo-lan", "--network", "lan")
    assert reaches(third, "solo-lan", task[:12]) == inside(third, task, "hostname")
    [lan] = first.json("network", "inspect", "lan")
    assert (lan["Driver"], lan["Scope"], lan["ConfigFrom"]) == ("bridge", "swarm", {"Network": "conf"})
    assert first.docker("network", "ls", "-q", "--filter", "name=lan").count("\n") == 0, "shown once"
    [found] = third.json("inspect", started(first, third, "onhost"))
    assert found["HostConfig"]["NetworkMode"] == "host"


@pytest.mark.row("NW-12", client="docker on real hosts")
def test_nw_12_host_mode(served: list[Host]) -> None:
    first, second, third = served
    name = inside(third, started(first, third, "out"), "hostname")
    asks = ("busybox", "nc", "-w", "2")
    script = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | {} {} 8090 | tail -n 1"
    assert first.run("sh", "-c", script.format(" ".join(asks), third.address)) == name
    assert first.run("sh", "-c", script.format(" ".join(asks), second.address) + "; true") == ""


@pytest.mark.row("NW-14", "NW-11", client="docker on real hosts")
def test_nw_14_the_ingress_network_anew(served: list[Host]) -> None:
    first, *others = served
    remove_ingress(first, "ingress")
    until("it is gone on every host", lambda: all("ingress" not in h.docker("network", "ls") for h in served), 20)
    first.docker("network", "create", "-d", "overlay", "--ingress", "--subnet", "10.92.0.0/16", "mesh")
    first.docker("service", "update", "-d", "--publish-add", "8091:80", "named")
    script = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 2 127.0.0.1 8091 | tail -n 1"
    for host in served:
        until(f"{host.name} answers", lambda: host.run("sh", "-c", script) == "box-1", 30)  # noqa: B023
    assert "is already present" in others[0].fails("network", "create", "-d", "overlay", "--ingress", "more")
    assert "depends on it" in remove_ingress(first, "mesh")
    first.docker("service", "update", "-d", "--publish-rm", "80", "named")
    remove_ingress(first, "mesh")
    first.docker("network", "create", "-d", "overlay", "--ingress", "ingress")
