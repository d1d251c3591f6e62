"""One lab for all tests here, in a directory of its own; each module gets a fresh swarm on it."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hosts import BUSYBOX, Host, logs, until
from machine import machine

from afterswarm.lab.lab import Lab


@pytest.fixture(scope="session")
def before() -> dict[str, list[str]]:
    """What was on the machine before the lab."""
    return machine()


@pytest.fixture(scope="session")
def lab(before: dict[str, list[str]]) -> Iterator[Lab]:
    """Three hosts that are up, and a registry with a small image."""
    here = Lab()
    assert "asw-lab" not in before["links"], "a lab is up already; `afterswarm lab down` removes it"
    try:
        here.up(3)
        push_busybox(Host(here, "swarm-1"))
        yield here
    finally:
        here.down()


def push_busybox(host: Host) -> None:
    """An image of nothing but a static busybox, in the lab's registry."""
    pack = io.BytesIO()
    with tarfile.open(fileobj=pack, mode="w") as tar:
        tar.add("/bin/busybox" if Path("/bin/busybox").exists() else "/usr/bin/busybox", "bin/busybox")
        for name in (
            "sh",
            "sleep",
            "wget",
            "nc",
            "httpd",
            "cat",
            "echo",
            "env",
            "id",
            "ls",
            "nslookup",
            "hostname",
            "true",
            "false",
            "touch",
            "ip",
            "stat",
            "date",
            "test",
            "kill",
            "mkdir",
            "trap",
            "grep",
            "tail",
        ):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        for folder in ("tmp", "etc", "www", "data"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
            tar.addfile(entry)
    engine = [host.client, "-H", f"unix://{host.place.engine_socket}"]
    argv = [*engine, "import", "--change", 'CMD ["sleep", "1000000"]', "-", BUSYBOX]
    subprocess.run(argv, input=pack.getvalue(), check=True, capture_output=True)
    host.docker("push", BUSYBOX, engine=True)


@pytest.fixture(scope="module")
def hosts(lab: Lab) -> list[Host]:
    """The three hosts, in no swarm."""
    for place in lab.read().hosts:
        if place.state == "cut":
            lab.heal(place.name)
        elif place.state == "off":
            lab.start(place.name)
    found = [Host(lab, h.name) for h in lab.read().hosts]
    disband(found)
    return found


def disband(hosts: list[Host]) -> None:
    """Take every host out of its swarm."""
    for host in hosts:
        if host.docker("info", "--format", "{{.Swarm.LocalNodeState}}") != "inactive":
            host.docker("swarm", "leave", "--force")


def form(hosts: list[Host], managers: int = 3) -> None:
    """Make these hosts one swarm: the first ones managers, the others workers."""
    first = hosts[0]
    first.docker("swarm", "init", "--advertise-addr", first.address)
    for role, others in (("manager", hosts[1:managers]), ("worker", hosts[max(managers, 1) :])):
        token = first.docker("swarm", "join-token", "-q", role) if others else ""
        for host in others:
            host.docker("swarm", "join", "--token", token, f"{first.address}:2377")
    until(
        "all nodes ready and managers reachable",
        lambda: (
            list(first.nodes().values()) == ["Ready"] * len(hosts)
            and first.docker("node", "ls", "--format", "{{.ManagerStatus}}").split().count("Reachable") == managers - 1
        ),
    )


@pytest.fixture(scope="module")
def swarm(hosts: list[Host]) -> list[Host]:
    """Three managers."""
    form(hosts)
    return hosts


@pytest.fixture(autouse=True)
def told(request: pytest.FixtureRequest, lab: Lab) -> Iterator[None]:
    """A failure shows the end of every daemon's log."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        print(logs(lab))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(item.path).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.lab)
            item.add_marker(pytest.mark.real)
