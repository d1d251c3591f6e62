"""An address for people to dial: one host answers for it, and another one soon after that host's power is cut."""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Iterator

import pytest
from hosts import BUSYBOX, Host, daemon_pid, until

ADDRESS = "10.77.0.100"


@pytest.fixture(scope="module")
def dialled(swarm: list[Host]) -> Iterator[list[Host]]:
    """A floating address, and a service behind it on every host."""
    first = swarm[0]
    address(first, "add", f"{ADDRESS}/24")
    serve = "echo here > /www/index.html; exec httpd -f -p 80 -h /www"
    first.docker(
        "service", "create", "-d", "--name", "web", "--mode", "global", "--publish", "8080:80", "--stop-signal",
        "SIGKILL", BUSYBOX, "sh", "-c", serve,
    )  # fmt: skip
    yield swarm
    for host in swarm:
        if host.place.state == "off":
            host.lab.start(host.name)
        elif host.place.state == "cut":
            host.lab.heal(host.name)
    until("the service can be removed", lambda: first.docker("service", "rm", "web"))
    address(first, "rm", ADDRESS)


def address(host: Host, *argv: str) -> str:
    """`afterswarm address` on a host."""
    return host.run(sys.executable, "-m", "afterswarm.cli.main", "address", "--listen", host.place.socket, *argv)


def dial() -> bool:
    """Whether the address answers a client outside the swarm, which is where this test runs."""
    with urllib.request.urlopen(f"http://{ADDRESS}:8080/", timeout=1) as answer:
        return bool(answer.read() == b"here\n")


def holding(hosts: list[Host]) -> list[Host]:
    """Who has it on an interface."""
    return [host for host in hosts if f" {ADDRESS}/" in host.run("ip", "-4", "-o", "address", "show")]


def test_it_moves_when_its_holder_loses_power(dialled: list[Host]) -> None:
    until("it answers", dial)
    [holder] = holding(dialled)
    others = [host for host in dialled if host is not holder]
    holder.lab.kill(holder.name)
    until("it answers again", dial)
    [after] = holding(others)
    rows = address(after, "ls").splitlines()
    assert rows[1].split() == [ADDRESS, after.name, "held"]
    holder.lab.start(holder.name)
    until("the host is back", lambda: list(others[0].nodes().values()).count("Ready") == len(dialled))
    assert holding(dialled) == [after]


def test_a_host_that_is_cut_off_has_let_go(dialled: list[Host]) -> None:
    until("it answers", dial)
    [holder] = holding(dialled)
    others = [host for host in dialled if host is not holder]
    holder.lab.cut(holder.name)
    until("another host has it", lambda: holding(others))
    assert holding(dialled) == holding(others)
    holder.lab.heal(holder.name)
    until("it answers", dial)


def test_a_daemon_that_stands_still_loses_it(dialled: list[Host]) -> None:
    until("it answers", dial)
    [holder] = holding(dialled)
    pid = str(daemon_pid(holder))
    holder.run("kill", "-STOP", pid)
    try:
        others = [host for host in dialled if host is not holder]
        until("another host has it", lambda: holding(others))
        until("it answers", dial)
    finally:
        holder.run("kill", "-CONT", pid)
    until("the daemon has let go of it", lambda: holding(dialled) == holding(others))


def test_a_drained_host_hands_it_over(dialled: list[Host]) -> None:
    until("it answers", dial)
    [holder] = holding(dialled)
    holder.docker("node", "update", "--availability", "drain", holder.name)
    until("another host has it", lambda: holding(dialled) not in ([], [holder]))
    holder.docker("node", "update", "--availability", "active", holder.name)
    until("it answers", dial)
