"""The two that are compared, on the same hosts: ours on its sockets, Docker Swarm on the engines' own."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from dockerapi import docker, get

from afterswarm.lab.hosts import LabHost
from afterswarm.lab.lab import Lab

T = TypeVar("T")
LOOK = 0.1  # seconds between looks; what is measured is as coarse as this


class NotWithin(Exception):
    """What was waited for did not come."""


def until(what: str, good: Callable[[], T], within: float = 120.0) -> T:
    """Call `good` until what it returns is true, and return that. A refused or silent API counts as not yet."""
    ends, last = time.monotonic() + within, ""
    while time.monotonic() < ends:
        try:
            if found := good():
                return found
        except OSError as e:
            last = f" ({e})"
        time.sleep(LOOK)
    raise NotWithin(f"{what}: not within {within:.0f} s{last}")


class Peer:
    """One side. `sockets` are those that its swarm is driven through, in the order of the hosts."""

    name = ""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    @property
    def hosts(self) -> list[LabHost]:
        return self.lab.read().hosts

    def socket(self, host: LabHost) -> str:
        raise NotImplementedError

    @property
    def door(self) -> str:
        """The first host's socket: a manager."""
        return self.socket(self.hosts[0])

    def form(self, managers: int) -> float:
        """Make the hosts one swarm; returns how long that took."""
        begun = time.monotonic()
        first, *others = self.hosts
        docker(self.door, "swarm", "init", "--advertise-addr", first.address)
        for index, host in enumerate(others, start=2):
            token = docker(self.door, "swarm", "join-token", "-q", "manager" if index <= managers else "worker")
            join = ["swarm", "join", "--advertise-addr", host.address, "--token", token, f"{first.address}:2377"]
            docker(self.socket(host), *join)
        until("all nodes ready", lambda: self.whole(managers))
        return time.monotonic() - begun

    def whole(self, managers: int) -> bool:
        nodes = get(self.door, "/nodes")
        ready = sum(n["Status"]["State"] == "ready" for n in nodes)
        reachable = sum((n.get("ManagerStatus") or {}).get("Reachability") == "reachable" for n in nodes)
        return ready == len(self.hosts) and reachable == managers

    def leave(self) -> None:
        """All at once; each is out when this returns."""

        def out(host: LabHost) -> None:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                docker(self.socket(host), "swarm", "leave", "--force", timeout=60.0)
            until(f"{host.name} out of the swarm", lambda: self.state(host) == "inactive", 10.0)

        with ThreadPoolExecutor() as pool:
            list(pool.map(out, self.hosts))

    def state(self, host: LabHost) -> str:
        return str(get(self.socket(host), "/info")["Swarm"]["LocalNodeState"])

    def leader(self) -> LabHost:
        for node in get(self.door, "/nodes"):
            if (node.get("ManagerStatus") or {}).get("Leader"):
                return next(h for h in self.hosts if h.name == node["Description"]["Hostname"])
        raise NotWithin("no leader")


class Ours(Peer):
    name = "Afterswarm"

    def socket(self, host: LabHost) -> str:
        return host.socket


class Swarm(Peer):
    name = "Docker Swarm"

    def socket(self, host: LabHost) -> str:
        return host.engine_socket


class Tasks:
    """What `/tasks` of one manager says now."""

    def __init__(self, socket: str, *, without: str = "", timeout: float = 3.0) -> None:
        services = {s["ID"]: s["Spec"] for s in get(socket, "/services", timeout)}
        self.wanted: dict[str, int] = {s["Name"]: s["Mode"]["Replicated"]["Replicas"] for s in services.values()}
        self.running = dict.fromkeys(self.wanted, 0)
        self.alive = dict.fromkeys(self.wanted, 0)  # running, wanted or not
        for task in get(socket, "/tasks", timeout):
            spec = services.get(task.get("ServiceID", ""))
            if spec and task["Status"]["State"] == "running" and task.get("NodeID") != without:
                self.alive[spec["Name"]] += 1
                self.running[spec["Name"]] += task["DesiredState"] == "running"

    @property
    def whole(self) -> bool:
        """Every service has exactly its replicas."""
        return bool(self.wanted) and self.running == self.wanted == self.alive

    @property
    def there(self) -> bool:
        """Every service has at least its replicas."""
        return bool(self.wanted) and all(self.running[name] >= n for name, n in self.wanted.items())


def containers(hosts: list[LabHost]) -> int:
    """Containers of services that the engines themselves show as running: neither side is taken at its word."""
    asked = '/containers/json?filters={"label":["com.docker.swarm.service.name"]}'.replace('"', "%22")
    return sum(len(get(host.engine_socket, asked, 10.0)) for host in hosts if host.state == "up")


def node_of(nodes: list[dict[str, Any]], host: LabHost) -> dict[str, Any]:
    """The node of this host; `OSError`, which counts as not yet, where it is not listed."""
    for node in nodes:
        if node["Description"].get("Hostname") == host.name:
            return node
    raise OSError(f"no node of {host.name} in {[n['Description'].get('Hostname') for n in nodes]}")
