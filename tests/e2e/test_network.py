"""Overlay networks on real kernels: names, virtual addresses, published ports, and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dnslib import QTYPE, RCODE, RR, A, DNSRecord
from hosts import BUSYBOX, Host, daemon_pid, restart_daemon, until

from afterswarm.lab.hosts import GATEWAY

CLIENT = "cgi-bin/client"  # answers the address that the client has for the server
WEB = (
    f"mkdir -p /tmp/w/cgi-bin; hostname > /tmp/w/index.html; echo '#!/bin/sh' > /tmp/w/{CLIENT}; "
    f"echo 'echo; echo $$REMOTE_ADDR' >> /tmp/w/{CLIENT}; busybox chmod +x /tmp/w/{CLIENT}; "
    "exec httpd -f -p 80 -h /tmp/w"
)
GATED = f"if [ $$SLOT = 1 ]; then touch /tmp/ok; fi; {WEB}"
ECHO = (
    "import socket as s; u = s.socket(s.AF_INET, s.SOCK_DGRAM); u.bind(('', 9000))\n"
    "while True: _, who = u.recvfrom(99); u.sendto(f'{s.gethostname()} {who[0]}'.encode(), who)"
)
INTERPRETER = sorted({"/usr", "/lib", "/lib64", sys.base_prefix})
STACK = {
    "version": "3.8",
    "networks": {"front": {"attachable": True}, "back": {}},
    "services": {
        "web": {
            "image": BUSYBOX,
            "command": ["sh", "-c", WEB],
            "networks": {"front": {"aliases": ["www"]}},
            "ports": ["8080:80"],
            "stop_grace_period": "1s",
            "deploy": {"replicas": 3, "labels": {"afterswarm.ports": "http=80"}},
        },
        "gate": {  # only the first task is healthy, until a file is made in the second
            "image": BUSYBOX,
            "command": ["sh", "-c", GATED],
            "environment": {"SLOT": "{{.Task.Slot}}"},
            "networks": ["front"],
            "ports": ["8081:80"],
            "stop_grace_period": "1s",
            "healthcheck": {
                "test": "test -f /tmp/ok",
                "interval": "500ms",
                "timeout": "2s",
                "retries": 2,
                "start_period": "300s",
            },
            "deploy": {"replicas": 2, "restart_policy": {"delay": "0s"}},
        },
        "edge": {  # one task, on one host
            "image": BUSYBOX,
            "command": ["sh", "-c", WEB],
            "networks": ["back"],
            "ports": ["8082:80"],
            "stop_grace_period": "1s",
            "deploy": {"placement": {"constraints": ["node.hostname == swarm-2"]}},
        },
        "own": {  # its port is its host's alone
            "image": BUSYBOX,
            "command": ["sh", "-c", WEB],
            "networks": ["back"],
            "ports": [{"target": 80, "published": 8083, "mode": "host"}],
            "stop_grace_period": "1s",
            "deploy": {"placement": {"constraints": ["node.hostname == swarm-3"]}},
        },
        "echo": {  # needs an interpreter: this one, from the host's disk
            "image": BUSYBOX,
            "command": [os.path.realpath(sys.executable), "-c", ECHO],
            "volumes": [f"{place}:{place}:ro" for place in INTERPRETER if Path(place).exists()],
            "networks": ["back"],
            "ports": ["9000:9000/udp"],
            "stop_grace_period": "1s",
        },
        "front": {"image": BUSYBOX, "networks": ["front"], "stop_grace_period": "1s", "deploy": {"mode": "global"}},
        "back": {"image": BUSYBOX, "networks": ["back"], "stop_grace_period": "1s", "deploy": {"mode": "global"}},
    },
}
RUNNING = {"web": 3, "edge": 1, "own": 1, "echo": 1, "front": 3, "back": 3}


def deploy(host: Host, name: str, stack: dict[str, Any], folder: Path) -> None:
    file = folder / f"{name}.json"
    file.write_text(json.dumps(stack))
    host.docker("stack", "deploy", "-c", str(file), name)


@pytest.fixture(scope="module")
def app(swarm: list[Host], tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Host]]:
    """The hosts, with the stack above running on them as `app`."""
    first = swarm[0]
    deploy(first, "app", STACK, tmp_path_factory.mktemp("stack"))
    for service, count in RUNNING.items():
        until(f"{count} running of {service}", lambda: len(first.running(f"app_{service}")) == count)  # noqa: B023
    until("the first gate", lambda: [name for name, _ in first.running("app_gate")] == ["app_gate.1"])
    yield swarm
    first.docker("stack", "rm", "app")


# ---- looking -------------------------------------------------------------------------------------------------------


def container(host: Host, service: str) -> str:
    """The id of the service's container on this host."""
    found = host.docker("ps", "-q", "--filter", f"label=com.docker.swarm.service.name={service}").split()
    assert found, f"{host.name} runs nothing of {service}"
    return found[0]


def inside(host: Host, service: str, *argv: str) -> str:
    """Run a program in the service's container on this host."""
    return host.docker("exec", container(host, service), *argv)


def look_up(host: Host, service: str, name: str) -> set[str]:
    """The addresses of a name, as a container sees them."""
    said = inside(host, service, "nslookup", name)
    return set(re.findall(r"Address:\s*(\d+\.\d+\.\d+\.\d+)$", said.partition("Name:")[2], re.MULTILINE))


def tasks_of(host: Host, service: str) -> list[dict[str, Any]]:
    """The service's tasks that run and are to run."""
    ids = host.docker("service", "ps", "-q", "--no-trunc", "--filter", "desired-state=running", service).split()
    tasks: list[dict[str, Any]] = host.json("inspect", "--type", "task", *ids) if ids else []
    return [t for t in tasks if t["Status"]["State"] == "running"]


def addresses(host: Host, service: str, network: str) -> dict[str, str]:
    """Task id -> address in the network, of the service's running tasks."""
    return {
        task["ID"]: attachment["Addresses"][0].partition("/")[0]
        for task in tasks_of(host, service)
        for attachment in task["NetworksAttachments"]
        if attachment["Network"]["Spec"]["Name"] == network
    }


def virtual(host: Host, service: str, network: str) -> str:
    """The service's virtual address in the network."""
    [found] = host.json("service", "inspect", service)
    wanted = host.docker("network", "inspect", "-f", "{{.Id}}", network)
    [address] = [v["Addr"] for v in found["Endpoint"]["VirtualIPs"] if v["NetworkID"] == wanted]
    return str(address.partition("/")[0])


def fetch(address: str, port: int, path: str = "") -> str:
    """What a client outside gets from this address; a connection of its own. The answer is a task's host name."""
    with urllib.request.urlopen(f"http://{address}:{port}/{path}", timeout=3) as answer:
        return str(answer.read().decode().strip())


# Not busybox's wget: linked statically, it crashes as soon as it looks into /etc/services.
GET = (
    r"for i in $(busybox seq $3); do printf 'GET / HTTP/1.0\r\n\r\n'"
    " | busybox nc -w $4 $1 $2 | busybox tail -n 1; done"
)


def from_within(
    host: Host, service: str, address: str, port: int = 80, *, count: int = 1, wait: int = 3
) -> Counter[str]:
    """Who answers a client in the service's container on this host, each time on a connection of its own."""
    return Counter(inside(host, service, "sh", "-c", GET, "sh", address, str(port), str(count), str(wait)).split())


def from_itself(host: Host, address: str, port: int) -> str:
    """Who answers a program on the host itself."""
    return host.run("busybox", "sh", "-c", GET, "sh", address, str(port), "1", "3")


def names_of(host: Host, service: str) -> set[str]:
    """Container host names of the service's running tasks: the first twelve characters of their ids."""
    return {t["Status"]["ContainerStatus"]["ContainerID"][:12] for t in tasks_of(host, service)}


def answered(get: Callable[[], str], count: int) -> Counter[str]:
    return Counter(get() for _ in range(count))


# ---- names ---------------------------------------------------------------------------------------------------------


def test_names_are_known_on_every_host(app: list[Host]) -> None:
    address = virtual(app[0], "app_web", "app_front")
    tasks = addresses(app[0], "app_web", "app_front")
    assert len(set(tasks.values())) == 3
    for host in app:
        for name in ("web", "app_web", "WEB", "www"):
            assert look_up(host, "app_front", name) == {address}, f"{name} on {host.name}"
        said = inside(host, "app_front", "nslookup", "-type=srv", "_http._tcp.web")
        assert "80 app_web" in said, f"where its port is, on {host.name}: {said}"
        for name in ("tasks.web", "tasks.app_web"):
            assert look_up(host, "app_front", name) == set(tasks.values()), f"{name} on {host.name}"
    for task in tasks_of(app[0], "app_web"):
        name = f"app_web.{task['Slot']}.{task['ID']}"
        assert look_up(app[1], "app_front", name) == {tasks[task["ID"]]}


def test_an_address_has_a_name(app: list[Host]) -> None:
    [(task, address)] = addresses(app[0], "app_edge", "app_back").items()
    said = inside(app[0], "app_back", "nslookup", address)
    assert f"app_edge.1.{task}.app_back" in said


def test_a_hosts_own_container_is_seen_by_services_as_itself(app: list[Host]) -> None:
    """By a virtual address, on whichever host the task is."""
    host = app[2]
    host.docker("run", "-d", "--name", "solo", "--network", "app_front", BUSYBOX, "sleep", "600")
    try:
        own = host.json("inspect", "solo")[0]["NetworkSettings"]["Networks"]["app_front"]["IPAddress"]

        def fetch(path: str) -> str:
            asked = f"printf 'GET /{path} HTTP/1.0\\r\\n\\r\\n' | nc -w 3 web 80"
            said = host.docker("exec", "solo", "sh", "-c", asked).splitlines()
            return said[-1] if said else ""

        until("it reaches the service", lambda: fetch(""), 10)
        assert {fetch(CLIENT).strip("[]").removeprefix("::ffff:") for _ in range(6)} == {own}
        assert len({fetch("") for _ in range(6)}) == 3, "every task was asked"
    finally:
        host.docker("rm", "-f", "solo")


ASKING = "while [ ! -e /tmp/enough ]; do echo >> /tmp/asked; nslookup web > /dev/null || echo >> /tmp/failed; done"


def test_names_are_answered_without_the_daemon(app: list[Host]) -> None:
    """It stands still, it dies, it comes back: no question fails."""
    host = app[1]
    front = container(host, "app_front")
    virtual = look_up(host, "app_front", "web")
    host.docker("exec", "-d", front, "sh", "-c", ASKING)
    host.run("kill", "-STOP", str(daemon_pid(host)))
    said = host.docker("exec", front, "nslookup", "app_web.app_front", engine=True)
    assert next(iter(virtual)) in said.partition("Name:")[2]
    restart_daemon(host)
    host.docker("exec", front, "touch", "/tmp/enough")
    counted = inside(
        host, "app_front", "sh", "-c", "cat /tmp/asked | grep -c ''; cat /tmp/failed 2>/dev/null | grep -c ''; true"
    )
    asked, failed = map(int, counted.split())
    assert failed == 0, f"{failed} of {asked}"
    assert asked > 20
    assert look_up(host, "app_front", "web") == virtual


def test_unknown_names_go_upstream(app: list[Host]) -> None:
    """To the nameservers of the host; what nobody knows is said so."""
    host = app[0]
    with nameserver({"www.example.test.": "192.0.2.7"}) as asked:
        host.run("sh", "-c", f"echo nameserver {GATEWAY} > /run/resolv.conf")
        host.run("mount", "--bind", "/run/resolv.conf", "/etc/resolv.conf")
        try:
            assert look_up(host, "app_front", "www.example.test") == {"192.0.2.7"}
            with pytest.raises(AssertionError, match="NXDOMAIN"):
                look_up(host, "app_front", "nobody.example.test")
            look_up(host, "app_front", "web")
        finally:
            host.run("umount", "/etc/resolv.conf")
    assert "www.example.test." in asked
    assert not [name for name in asked if name.startswith("web")], "our names are nobody else's business"


@contextlib.contextmanager
def nameserver(names: dict[str, str]) -> Iterator[list[str]]:
    """A nameserver outside the hosts. Yields the list of the names it was asked for."""
    asked: list[str] = []
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((GATEWAY, 53))

    def serve() -> None:
        while True:
            datagram, who = server.recvfrom(4096)
            if not datagram:
                return
            question = DNSRecord.parse(datagram)
            name = str(question.q.qname)
            asked.append(name)
            reply = question.reply()
            if name not in names:
                reply.header.rcode = RCODE.NXDOMAIN
            elif question.q.qtype == QTYPE.A:
                reply.add_answer(RR(name, QTYPE.A, rdata=A(names[name])))
            server.sendto(reply.pack(), who)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield asked
    finally:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"", (GATEWAY, 53))
        thread.join()
        server.close()


def test_networks_are_apart(app: list[Host]) -> None:
    """Neither names nor addresses of one network are anything to a container in another."""
    there = [virtual(app[0], "app_web", "app_front"), *addresses(app[0], "app_web", "app_front").values()]
    for host in app:
        with pytest.raises(AssertionError, match="can't find web"):
            look_up(host, "app_back", "web")
    for address in there:
        assert from_within(app[0], "app_front", address), "a container in the network reaches it"
        assert not from_within(app[0], "app_back", address, wait=1), "one in another network does not"


# ---- balancing -----------------------------------------------------------------------------------------------------


def test_a_virtual_address_is_balanced(app: list[Host]) -> None:
    address = virtual(app[0], "app_web", "app_front")
    everyone = names_of(app[0], "app_web")
    for host in app:
        assert from_within(host, "app_front", address, count=12) == dict.fromkeys(everyone, 4), host.name


def test_only_healthy_tasks_are_chosen(app: list[Host]) -> None:
    """The second task runs but is not healthy yet; then it is; then the first one falls ill and is replaced."""
    first = app[0]
    address = virtual(first, "app_gate", "app_front")
    [good] = names_of(first, "app_gate")
    waiting = [(h, c) for h in app for c in h.docker("ps", "-q", "--filter", "health=starting").split()]
    [(host, other)] = [(h, c) for h, c in waiting if "gate" in h.docker("inspect", "-f", "{{.Name}}", c)]
    assert from_within(first, "app_front", address, count=12) == {good: 12}
    assert answered(lambda: fetch(app[1].address, 8081), 6) == {good: 6}

    host.docker("exec", other, "touch", "/tmp/ok")
    until("both gates answer", lambda: set(from_within(first, "app_front", address, count=12)) == {good, other})

    [ill] = [h for h in app if good in h.docker("ps", "-q").split()]
    ill.docker("exec", good, "busybox", "rm", "/tmp/ok")
    until("the sick one is left alone", lambda: good not in from_within(first, "app_front", address, count=12))
    assert good not in answered(lambda: fetch(app[2].address, 8081), 6)
    until("a new one is there", lambda: len(names_of(first, "app_gate") - {good, other}) == 1)


def test_a_task_that_dies_is_not_chosen(app: list[Host]) -> None:
    first = app[0]
    address = virtual(first, "app_web", "app_front")
    killed = container(first, "app_web")[:12]
    first.docker("kill", killed)
    until("the dead one is left alone", lambda: killed not in from_within(app[1], "app_front", address, count=12))
    until("three again", lambda: len(set(from_within(app[1], "app_front", address, count=12)) - {killed}) == 3)


def test_scaling_takes_endpoints_in_and_out(app: list[Host]) -> None:
    first = app[0]
    address = virtual(first, "app_web", "app_front")
    for count in (5, 1, 3):
        first.docker("service", "scale", "-d", f"app_web={count}")
        for host in app:
            until(f"{count} names", lambda: len(look_up(host, "app_front", "tasks.web")) == count)  # noqa: B023
            until(f"{count} answer", lambda: len(from_within(host, "app_front", address, count=12)) == count)  # noqa: B023
        assert set(from_within(first, "app_front", address, count=12)) == names_of(first, "app_web")
        assert set(answered(lambda: fetch(app[2].address, 8080), 15)) == names_of(first, "app_web")


# ---- published ports -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("service", "port"), [("app_web", 8080), ("app_edge", 8082)])
def test_every_host_answers_a_published_port(app: list[Host], service: str, port: int) -> None:
    """With and without a task of its own; to a client outside, on the host itself, and in a container."""
    everyone = names_of(app[0], service)
    for host in app:
        assert set(answered(lambda: fetch(host.address, port), 6)) == everyone, f"from outside, {host.name}"  # noqa: B023
        for address in ("127.0.0.1", "localhost", host.address):
            assert from_itself(host, address, port) in everyone, f"{host.name} at {address}"
        for other in app:
            [said] = from_within(host, "app_back", other.address, port)
            assert said in everyone, f"a container on {host.name} at {other.name}"


def test_every_host_answers_a_published_udp_port(app: list[Host]) -> None:
    [task] = names_of(app[0], "app_echo")
    ask = (
        "import socket as s, sys; u = s.socket(s.AF_INET, s.SOCK_DGRAM); u.settimeout(3)\n"
        "u.sendto(b'?', (sys.argv[1], 9000)); print(u.recvfrom(99)[0].decode())"
    )
    for host in app:
        outside = subprocess.run([sys.executable, "-c", ask, host.address], capture_output=True, text=True, check=False)
        assert outside.stdout.split() == [task, GATEWAY], f"from outside, {host.name}: {outside.stderr}"
        for address in ("127.0.0.1", host.address):
            assert host.run(sys.executable, "-c", ask, address).split()[0] == task, f"{host.name} at {address}"


def test_a_socket_that_keeps_asking_is_led_to_the_next_task(app: list[Host]) -> None:
    """At once, while the task that it asked so far still ends: a flow of datagrams would follow it for ever."""
    first = app[0]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(0.5)
        asking.connect((app[2].address, 9000))

        def answered_by() -> str:
            asking.send(b"?")
            try:
                return asking.recv(99).decode().split()[0]
            except TimeoutError:
                return ""

        [before] = names_of(first, "app_echo")
        assert until("it is answered", answered_by) == before
        first.docker("service", "update", "-d", "--label-add", "afterswarm.drain=6s", "app_echo")
        first.docker("service", "update", "-d", "--update-order", "start-first", "--env-add", "AGAIN=1", "app_echo")
        after = until("another one answers", lambda: (said := answered_by()) != before and said)
        there = "".join(host.docker("ps", "-q", engine=True) for host in app)
        assert before in there, "it is not gone: it goes on for as long as connections to it may"
    until("one is left", lambda: names_of(first, "app_echo") == {after})
    first.docker("service", "update", "-d", "--label-rm", "afterswarm.drain", "app_echo")


def test_tasks_see_the_clients_address(app: list[Host]) -> None:
    """Through every host, with and without a task of its own. A label hides it, but on the task's own host."""
    first = app[0]
    for host in app:
        assert set(answered(lambda: seen(fetch(host.address, 8080, CLIENT)), 6)) == {GATEWAY}, host.name  # noqa: B023
        assert seen(fetch(host.address, 8082, CLIENT)) == GATEWAY, host.name
    # programs on other hosts are clients like any other
    ask = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=3).read().decode())"
    said = app[2].run(sys.executable, "-c", ask, f"http://{first.address}:8082/{CLIENT}")
    assert seen(said) == app[2].address
    first.docker("service", "update", "-d", "--label-add", "afterswarm.mesh=masquerade", "app_edge")
    until("it is hidden", lambda: seen(fetch(first.address, 8082, CLIENT)) != GATEWAY)
    assert seen(fetch(app[1].address, 8082, CLIENT)) == GATEWAY
    first.docker("service", "update", "-d", "--label-rm", "afterswarm.mesh", "app_edge")
    until("it is shown", lambda: seen(fetch(first.address, 8082, CLIENT)) == GATEWAY)


def seen(said: str) -> str:
    """An address as busybox's server writes it, without what it puts around it."""
    return said.strip().strip("[]").removeprefix("::ffff:")


def test_a_port_in_host_mode_is_its_hosts_own(app: list[Host]) -> None:
    [task] = names_of(app[0], "app_own")
    assert fetch(app[2].address, 8083) == task
    assert from_itself(app[2], "127.0.0.1", 8083) == task
    for host in app[:2]:
        with pytest.raises(OSError, match="refused"):
            fetch(host.address, 8083)


def test_a_port_is_given_once(app: list[Host]) -> None:
    service = app[0].docker("service", "inspect", "-f", "{{.ID}}", "app_web")
    words = app[0].fails("service", "create", "-d", "--name", "late", "-p", "8080:80", BUSYBOX)
    assert words == (
        "Error response from daemon: rpc error: code = InvalidArgument desc = "
        f"port '8080' is already in use by service 'app_web' ({service}) as an ingress port"
    )
    service = app[0].docker("service", "inspect", "-f", "{{.ID}}", "app_own")
    words = app[0].fails("service", "update", "-d", "--publish-add", "8083:80", "app_web")
    assert words.endswith(f"port '8083' is already in use by service 'app_own' ({service}) as a host-published port")


# ---- kinds of services and networks --------------------------------------------------------------------------------


def test_a_service_without_a_virtual_address(app: list[Host]) -> None:
    """With `--endpoint-mode dnsrr` its name is all its tasks' addresses."""
    first = app[0]
    argv = ["--replicas", "3", "--network", "app_front", "--endpoint-mode", "dnsrr", "--stop-signal", "SIGKILL"]
    first.docker("service", "create", "-d", "--name", "ring", *argv, BUSYBOX, "sh", "-c", WEB)
    try:
        until("it runs", lambda: len(first.running("ring")) == 3)
        tasks = addresses(first, "ring", "app_front")
        for host in app:
            until("its name is its tasks", lambda: look_up(host, "app_front", "ring") == set(tasks.values()))  # noqa: B023
        for address in tasks.values():
            assert from_within(app[1], "app_front", address)
        assert "VirtualIPs" not in first.json("service", "inspect", "ring")[0]["Endpoint"]
        words = first.fails("service", "update", "-d", "--publish-add", "8089:80", "ring")
        assert "EndpointSpec: port published with ingress mode can't be used with dnsrr mode" in words
    finally:
        first.docker("service", "rm", "ring")


def test_an_internal_network_with_addresses_of_its_own(app: list[Host]) -> None:
    """Its containers reach each other across hosts, and nothing else."""
    first = app[0]
    argv = ["--driver", "overlay", "--internal", "--subnet", "172.30.5.0/24", "--gateway", "172.30.5.1"]
    first.docker("network", "create", *argv, "vault")
    argv = ["--mode", "global", "--network", "vault", "--stop-signal", "SIGKILL"]
    first.docker("service", "create", "-d", "--name", "safe", *argv, BUSYBOX, "sh", "-c", WEB)
    try:
        until("it runs", lambda: len(first.running("safe")) == 3)
        tasks = addresses(first, "safe", "vault")
        assert {a.rpartition(".")[0] for a in tasks.values()} == {"172.30.5"}
        assert "172.30.5.1" not in tasks.values()
        for host in app:
            for address in tasks.values():
                assert from_within(host, "safe", address), f"from {host.name}"
            assert set(from_within(host, "safe", virtual(first, "safe", "vault"), count=3)) == names_of(first, "safe")
            assert not from_within(host, "safe", GATEWAY, 5000, wait=1), "the registry, outside"
        network = first.docker("network", "inspect", "-f", "{{.Id}}", "vault")
        assert f"network {network} is in use by service" in first.fails("network", "rm", "vault")
    finally:
        first.docker("service", "rm", "safe")
        until("the network can go", lambda: first.docker("network", "rm", "vault"))


# ---- what the command line shows -----------------------------------------------------------------------------------


def test_our_networks_are_shown_and_the_engines_half_is_not(app: list[Host]) -> None:
    for host in app:
        rows = host.docker("network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}").splitlines()
        rows = [row for row in rows if not row.startswith("docker_gwbridge ")]  # of an engine that was in swarm mode
        assert sorted(row.split() for row in rows) == [
            ["app_back", "overlay", "swarm"],
            ["app_front", "overlay", "swarm"],
            ["bridge", "bridge", "local"],
            ["host", "host", "local"],
            ["ingress", "overlay", "swarm"],
            ["none", "null", "local"],
        ]
        bridges = host.docker("network", "ls", "--filter", "driver=bridge", "--format", "{{.Name}}").split()
        assert set(bridges) <= {"bridge", "docker_gwbridge"}
    ours = {h.docker("network", "inspect", "-f", "{{.Id}}", "app_front") for h in app}
    assert len(ours) == 1, "one id on every host"
    [shown] = app[0].json("network", "inspect", "app_front")
    assert (shown["Driver"], shown["Scope"], shown["Internal"], shown["Ingress"]) == ("overlay", "swarm", False, False)
    assert shown["Labels"] == {"com.docker.stack.namespace": "app"}
    assert container(app[0], "app_front") in {c[:12] for c in shown["Containers"]}
    assert {p["IP"] for p in shown["Peers"]} == {h.address for h in app}


def test_no_virtual_server_of_the_kernels(app: list[Host]) -> None:
    """Balancing is nftables' alone."""
    for host in app:
        table = host.run("sh", "-c", "cat /proc/net/ip_vs 2>/dev/null || true").splitlines()
        assert len(table) <= 3, "the head of a table without entries, at most"


# ---- addresses -----------------------------------------------------------------------------------------------------

ROUNDS = 9
SMALL = {
    "version": "3.8",
    "networks": {"one": {}, "two": {}},
    "services": {
        name: {
            "image": BUSYBOX,
            "networks": ["one", "two"],
            "ports": [f"{port}:80"],
            "stop_signal": "SIGKILL",
            "deploy": {"replicas": 4},
        }
        for name, port in (("a", 8090), ("b", 8091))
    },
}


def taken(host: Host) -> Counter[str]:
    """Every address in use: of tasks, services, and each host in each network."""
    found: Counter[str] = Counter()
    services = host.docker("service", "ls", "-q").split()
    for service in host.json("service", "inspect", *services):
        found.update(v["Addr"] for v in service["Endpoint"].get("VirtualIPs") or [])
        for task in tasks_of(host, service["ID"]):
            found.update(a["Addresses"][0] for a in task["NetworksAttachments"])
    return found


def bridges(hosts: list[Host]) -> Counter[str]:
    """Gateways of all our bridges, on all hosts."""
    shown = (h.run("ip", "-4", "-o", "address", "show") for h in hosts)
    return Counter(re.findall(r" asw\w+\s+inet ([\d./]+)", "\n".join(shown)))


def traces(host: Host) -> list[str]:
    """What a stack may leave on a host: links, rules, containers, networks of the engine."""
    links = re.findall(r"^\d+: (as[wx]\w+|veth)", host.run("ip", "-o", "link"), re.MULTILINE)
    table = json.loads(host.run("nft", "-j", "list", "table", "inet", "afterswarm"))["nftables"]
    ours = [item for item in table if item.get("set", {}).get("name") != "alive"]
    rules = re.findall(r"[\w.:/]+", json.dumps(ours))  # in whatever order elements are
    rules = sorted(word for word in rules if not word.isdecimal())
    networks = host.docker("network", "ls", "--format", "{{.Name}}", engine=True).split()
    containers = host.docker("ps", "-a", "--format", "{{.Names}}").split()
    return [*sorted(links), *rules, *sorted(networks), *sorted(containers)]


def settled(host: Host) -> list[str]:
    """What is on the host once nothing of earlier tests is about to end, the last links of containers included."""
    looks: list[list[str]] = [[]]

    def calm() -> list[str]:
        wanted = host.docker("node", "ps", host.name, "-q", "--filter", "desired-state=running").split()
        looks.append(traces(host))
        time.sleep(1)  # the engine takes links away a moment after their container
        alike = looks[-1] == looks[-2]
        return looks[-1] if alike and len(host.docker("ps", "-q", engine=True).split()) == len(wanted) else []

    return until(f"{host.name} is calm", calm)


def no_more(now: list[str], before: list[str]) -> bool:
    """What is gone was a trace of earlier tests, which may take the engine a while: it is no leak."""
    left = sorted((Counter(now) - Counter(before)).elements())
    assert not left, f"left behind: {left}"
    return True


def test_addresses_are_given_once_and_taken_back(app: list[Host], tmp_path: Path) -> None:
    """Over many rounds of deploy and remove; afterwards each host is as it was."""
    first = app[0]
    before = [settled(h) for h in app]
    there = taken(first)
    subnets: list[set[str]] = []
    for round_ in range(ROUNDS):
        deploy(first, "small", SMALL, tmp_path)
        for service in ("small_a", "small_b"):
            until(f"{service} runs in round {round_}", lambda: len(first.running(service)) == 4)  # noqa: B023
        given = taken(first) + bridges(app)
        assert not [a for a, count in given.items() if count > 1], f"round {round_}"
        assert there.keys() <= given.keys()
        small = first.json("network", "inspect", "small_one", "small_two")
        subnets.append({n["IPAM"]["Config"][0]["Subnet"] for n in small})
        first.docker("stack", "rm", "small")
        if round_ % 4 == 3:  # the next deploy finds some of the last one otherwise, which must be right too
            for host, was in zip(app, before, strict=True):
                until(f"{host.name} is as before", lambda: no_more(traces(host), was), within=20)  # noqa: B023
            before = [traces(host) for host in app]  # the next rounds leave nothing more than these
            time.sleep(2)  # tasks that have ended are shown for a second, and hold their addresses until then
    assert subnets[0] == subnets[4] == subnets[8], "what was given back is given again"
