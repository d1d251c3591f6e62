"""The resolver as containers meet it: in a host's namespace, asked by programs of theirs, while daemons come and go."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kernel_lab as net
import msgspec
import pytest
from msgspec.structs import replace

from afterswarm.core.dns.zone import Zone
from afterswarm.model.network import NetworkSpec
from afterswarm.model.session import Route, Target
from afterswarm.model.task import Attachment, Task

pytestmark = [pytest.mark.real, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

DAEMON = """
import asyncio, sys
from pathlib import Path
import msgspec
from afterswarm.agent.names.names import Names
from afterswarm.core.dns.zone import Zone
from afterswarm.sim.clock import LoopClock

async def main():
    names = Names(clock=LoopClock(), run_dir=Path(sys.argv[1]))
    if sys.argv[2] == "clear":
        return await names.clear()
    async with asyncio.TaskGroup() as group:
        group.create_task(names.run())
        await names.tell(msgspec.json.decode(sys.argv[3], type=Zone), sys.argv[2].split(","))
        print("told", flush=True)

asyncio.run(main())
"""
ASK = """
import socket, sys, time
asked, until = 0, time.monotonic() + 60
while time.monotonic() < until:
    try:
        found = {a[4][0] for a in socket.getaddrinfo("web", 80, socket.AF_UNSPEC, socket.SOCK_STREAM)}
    except OSError as error:
        found = {str(error)}
    asked += 1
    print(asked, *found, flush=True)
"""
GATEWAY = net.BACKEND.gateways["n1"]
MANY = [
    Target(
        task_id=f"m{i}", node_id="n2", name=f"many.{i}.m{i}", addresses={net.BACKEND.id: f"10.200.1.{i}"}, ready=True
    )
    for i in range(100, 180)
]
ROUTES = [
    replace(net.web(net.target(1, "n1"), net.target(2, "n2")), named_ports={"_http._tcp": [80]}),
    Route(service_id="many", name="many", mode="dnsrr", targets=MANY),
]


def zone(*, vip: str = net.VIP, internal: bool = False) -> Zone:
    back = replace(net.BACKEND, spec=NetworkSpec(name="backend", internal=internal))
    routes = [replace(ROUTES[0], vips={net.BACKEND.id: vip}), ROUTES[1]]
    asker = Task(id="t1", attachments=[Attachment(network_id=back.id, address="10.200.1.11/24")])
    return Zone.of(networks=[net.INGRESS, back], routes=routes, tasks=[asker])


class Host:
    """One host with one container, whose nameserver is the host's gateway."""

    def __init__(self, lab: Any, folder: Path) -> None:
        self._lab = lab
        self._run = folder
        self._daemon: subprocess.Popen[str] | None = None
        self.container = lab.container("n1", 1)
        self.resolv = folder / "resolv.conf"
        self.resolv.write_text(f"nameserver {GATEWAY}\nsearch backend\noptions ndots:0\n")

    def begin(self, found: Zone) -> None:
        """A daemon that tells the resolver this, and then does nothing more."""
        argv = self._argv(GATEWAY, msgspec.json.encode(found).decode())
        self._daemon = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert self._daemon.stdout
        assert self._daemon.stdout.readline() == "told\n"

    def die(self) -> None:
        if self._daemon:
            self._daemon.kill()
            self._daemon.communicate()
            self._daemon = None

    def leave(self) -> None:
        self.die()
        subprocess.run(self._argv("clear"), check=True)

    def _argv(self, *args: str) -> list[str]:
        enter = f"--net=/proc/{self._lab.hosts['n1'].pid}/ns/net"
        return ["nsenter", enter, sys.executable, "-c", DAEMON, str(self._run), *args]

    def inside(self, *argv: str) -> list[str]:
        """In the container."""
        enter = f"--net=/proc/{self.container.pid}/ns/net"
        script = f'mount --bind {self.resolv} /etc/resolv.conf && exec "$@"'
        return ["nsenter", enter, "unshare", "--mount", "sh", "-c", script, "sh", *argv]

    def says(self, *argv: str) -> str:
        done = subprocess.run(self.inside(*argv), capture_output=True, text=True, check=False, timeout=30)
        return done.stdout + done.stderr


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    lab = net.Lab()
    made = Host(lab, tmp_path)
    try:
        yield made
    finally:
        made.leave()
        lab.close()


def test_what_programs_in_containers_make_of_it(host: Host) -> None:
    host.begin(zone())
    assert host.says("getent", "ahosts", "web").split()[:2] == [net.VIP, "STREAM"]
    assert host.says("getent", "hosts", "tasks.web.backend").split()[0] in {"10.200.1.11", "10.200.1.12"}
    assert host.says("getent", "hosts", net.VIP).split() == [net.VIP, "web.backend"]
    everybody = host.says("getent", "ahostsv4", "many").splitlines()
    assert len({line.split()[0] for line in everybody}) == 80, "by TCP, since they do not fit"
    said = host.says("busybox", "nslookup", "web.1.t1")
    assert "10.200.1.11" in said.partition("Name:")[2], said
    said = host.says("busybox", "nslookup", "-type=srv", "_http._tcp.web", GATEWAY)
    assert "80 web" in said, said


def test_an_internal_network_tells_of_nothing_else(host: Host) -> None:
    host.begin(zone(internal=True))
    assert host.says("getent", "hosts", "web").split()[0] == net.VIP
    assert "SERVFAIL" in host.says("busybox", "nslookup", "secret.example.org", GATEWAY)


def test_no_question_fails_while_daemons_are_killed(host: Host) -> None:
    host.begin(zone())
    with subprocess.Popen(host.inside(sys.executable, "-c", ASK), stdout=subprocess.PIPE, text=True) as client:
        try:
            assert client.stdout
            answers = [client.stdout.readline().split()]
            for vip in ("10.200.1.3", "10.200.1.4"):
                host.die()
                begun = time.monotonic()
                while time.monotonic() - begun < 0.3:  # nobody is there
                    answers.append(client.stdout.readline().split())
                host.begin(zone(vip=vip))
            while answers[-1][1:] != ["10.200.1.4"]:
                answers.append(client.stdout.readline().split())
        finally:
            client.kill()
    found = [answer[1:] for answer in answers]
    assert len(found) > 30
    assert sorted({tuple(a) for a in found}) == [(net.VIP,), ("10.200.1.3",), ("10.200.1.4",)]
    assert found == sorted(found), "none was answered as before after the next daemon had spoken"
