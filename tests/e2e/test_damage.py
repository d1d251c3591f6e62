"""Damage done by hand to a host that works: repaired within seconds, counted, shown, and no connection is cut."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hosts import BUSYBOX, Host, until
from prometheus_client.parser import text_string_to_metric_families

from afterswarm.cli import doctor, probes
from afterswarm.core.dataplane.paths import PRIORITY
from afterswarm.lab.power import inside

WITHIN = 5.0  # seconds
PORT = 9100
PYTHON = os.path.realpath(sys.executable)
INTERPRETER = sorted({"/usr", "/lib", "/lib64", sys.base_prefix})
ECHO = (
    "import socketserver as s\n"
    "class H(s.BaseRequestHandler):\n"
    "  def handle(self):\n"
    "    while said := self.request.recv(99): self.request.sendall(said)\n"
    "class S(s.ThreadingTCPServer): daemon_threads = True\n"
    "S(('', 9100), H).serve_forever()"
)
# There and back all the time; a line for each hundred, until the connection ends.
STREAM = (
    "import socket, time\n"
    "c = socket.create_connection(('echo', 9100), 5); c.settimeout(30); n = 0\n"
    "while True:\n"
    "  c.sendall(b'x'); assert c.recv(1), 'cut'; n += 1; time.sleep(0.01)\n"
    "  if n % 20 == 0: print(n, flush=True)"
)


class Stream:
    """A connection with data flowing. `said` is the last count, `ended` how it ended."""

    def __init__(self, argv: list[str]) -> None:
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.count = 0
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self.count = int(line)

    def flows(self) -> None:
        before = self.count
        until("data flows", lambda: self.count > before + 20 and self._process.poll() is None, 20)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def streams(swarm: list[Host], tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Stream]]:
    """From outside through swarm-1 to swarm-2, and from a container of swarm-1 to a virtual address."""
    first = swarm[0]

    def service(command: list[str], where: str, **more: Any) -> dict[str, Any]:
        volumes = [f"{place}:{place}:ro" for place in INTERPRETER if Path(place).exists()]
        deploy = {"placement": {"constraints": [f"node.hostname == {where}"]}}
        made = {"image": BUSYBOX, "command": command, "volumes": volumes, "deploy": deploy, "networks": ["n"]}
        return made | {"stop_grace_period": "1s"} | more

    file = tmp_path_factory.mktemp("stack") / "dmg.json"
    echo = service([PYTHON, "-c", ECHO], "swarm-2", ports=[f"{PORT}:{PORT}"])
    client = service(["sleep", "100000"], "swarm-1")
    stack = {"version": "3.8", "networks": {"n": {}}, "services": {"echo": echo, "client": client}}
    file.write_text(json.dumps(stack))
    first.docker("stack", "deploy", "-c", str(file), "dmg")
    until("both run", lambda: first.running("dmg_echo") and first.running("dmg_client"))
    container = first.docker("ps", "-q", "--filter", "label=com.docker.swarm.service.name=dmg_client", engine=True)
    engine = [first.client, "-H", f"unix://{first.place.engine_socket}"]
    found = [
        Stream([sys.executable, "-c", STREAM.replace("'echo'", f"'{first.address}'")]),
        Stream([*engine, "exec", container, PYTHON, "-c", STREAM]),
    ]
    yield found
    for stream in found:
        stream.close()
    first.docker("stack", "rm", "dmg")


def counted(host: Host) -> dict[str, float]:
    """Repairs by kind, as Prometheus is told."""
    connection = http.client.HTTPConnection("docker")
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.connect(str(host.place.socket))
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    return {s.labels["kind"]: s.value for s in families["afterswarm_repairs"].samples if s.name.endswith("_total")}


def devices(host: Host, prefix: str) -> list[str]:
    links = json.loads(host.run("ip", "-j", "link", "show"))
    return sorted(link["ifname"] for link in links if link["ifname"].startswith(prefix))


def delete_table(host: Host) -> None:
    host.run("nft", "delete", "table", "inet", "afterswarm")


def delete_devices(host: Host) -> None:
    for name in devices(host, "asx"):
        host.run("ip", "link", "del", name)


def flush_forwarding(host: Host) -> None:
    for name in (*devices(host, "asw"), *devices(host, "asx")):
        host.run("bridge", "fdb", "flush", "dev", name)


def delete_routes(host: Host) -> None:
    host.run("ip", "rule", "del", "priority", str(PRIORITY))
    for name in devices(host, "asw"):
        host.run("ip", "-4", "route", "flush", "dev", name, "scope", "link")


def bridges_down(host: Host) -> None:
    for name in devices(host, "asw"):
        host.run("ip", "link", "set", name, "down")


def containers_rules(host: Host) -> None:
    [client] = host.docker(
        "ps", "-q", "--filter", "label=com.docker.swarm.service.name=dmg_client", engine=True
    ).split()
    pid = host.docker("inspect", "-f", "{{.State.Pid}}", client, engine=True)
    host.run("nsenter", f"--net=/proc/{pid}/ns/net", "nft", "delete", "table", "inet", "afterswarm")


def dockers_filter(host: Host) -> None:
    host.run("iptables", "-F", "DOCKER-USER")


def another_firewall(host: Host) -> None:
    host.run("nft", "flush ruleset; add table inet own; add chain inet own in { type filter hook input priority 0; }")


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (delete_table, "rules"),
        (delete_devices, "links"),
        (flush_forwarding, "fdb"),
        (delete_routes, "routes"),
        (bridges_down, "links"),
        (containers_rules, "rules"),
        (dockers_filter, "firewall"),
        (another_firewall, "rules"),
    ],
)
def test_damage_is_repaired_and_counted_and_cuts_no_connection(
    swarm: list[Host], streams: list[Stream], damage: Callable[[Host], None], kind: str
) -> None:
    host = swarm[0]
    engines = host.run("iptables-save")
    for stream in streams:
        stream.flows()
    before = counted(host)[kind]
    damage(host)
    try:
        until(f"repaired: {kind}", lambda: counted(host)[kind] > before, WITHIN)
        for stream in streams:
            stream.flows()
        socket.create_connection((host.address, PORT), 5).close()
    finally:
        if damage is another_firewall:  # the engine does not mend its own
            subprocess.run(inside(host.place, ["iptables-restore"]), input=engines, text=True, check=True)
            host.run("nft", "delete table inet own")


def test_doctor_tells_of_it(swarm: list[Host]) -> None:
    standing = probes.get(str(swarm[0].place.socket), "/afterswarm/standing")

    def well() -> bool:
        holds, repaired = doctor.network(probes.get(str(swarm[0].place.socket), "/afterswarm/standing"))
        return holds.mark is doctor.Mark.OK and "since the daemon's start" in repaired.what

    until("the kernel holds what is wanted", well, 10)
    assert standing["Repairs"]["rules"] >= 2
    assert standing["Last"]
