"""The measures, the same for both sides. Each returns seconds."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dockerapi import call, docker, get
from peers import NotWithin, Peer, Tasks, containers, node_of, until

from afterswarm.lab.hosts import LabHost

STACK = "bench"
COMPOSE = Path(__file__).parent / "seven.yaml"
MANY = 30
POWER = 150.0  # seconds: Swarm takes most of a minute


def deploy(peer: Peer, image: str) -> float:
    """`docker stack deploy` of seven services to all ten replicas running."""
    begun = time.monotonic()
    docker(peer.door, "stack", "deploy", "-c", str(COMPOSE), STACK, BENCH_IMAGE=image)
    until("ten replicas", lambda: Tasks(peer.door).whole)
    took = time.monotonic() - begun
    _check(peer, 10)
    return took


def remove(peer: Peer) -> float:
    begun = time.monotonic()
    docker(peer.door, "stack", "rm", STACK)
    until("all containers gone", lambda: containers(peer.hosts) == 0)
    return time.monotonic() - begun


def scale(peer: Peer, replicas: int) -> float:
    """One service to so many replicas, surplus ones ended."""
    before = sum(Tasks(peer.door).running.values())
    services = get(peer.door, "/services")
    service = next(s for s in services if s["Spec"]["Name"] == f"{STACK}_db")
    was = service["Spec"]["Mode"]["Replicated"]["Replicas"]
    begun = time.monotonic()
    docker(peer.door, "service", "scale", "-d", f"{STACK}_db={replicas}")
    until(f"{replicas} replicas", lambda: Tasks(peer.door).whole)
    took = time.monotonic() - begun
    _check(peer, before - was + replicas)
    return took


def _check(peer: Peer, wanted: int) -> None:
    """Neither side says "running" of what its engines do not run, nor "ended" of what they still do."""
    until(f"{wanted} containers on the engines", lambda: containers(peer.hosts) == wanted, 5.0)


def power_cut(peer: Peer, leader: LabHost) -> dict[str, float]:
    """SIGKILL to all of the leader's host. Both survivors are asked; the first that knows counts."""
    down_id = node_of(get(peer.door, "/nodes"), leader)["ID"]
    doors = [peer.socket(h) for h in peer.hosts if h.name != leader.name]
    cut = time.monotonic()
    peer.lab.kill(leader.name)
    found: dict[str, float] = {}
    over = threading.Event()

    def watch(door: str) -> str:
        """What both know of the dead host, and its replicas; returns the last trouble."""
        trouble = ""
        while not over.is_set() and time.monotonic() < cut + POWER:
            try:
                states = {n["ID"]: n["Status"]["State"] for n in get(door, "/nodes", 1.0)}
                found.setdefault("answered", time.monotonic() - cut)
                if states[down_id] == "down":
                    found.setdefault("down", time.monotonic() - cut)
                    if Tasks(door, without=down_id).there:
                        found.setdefault("replaced", time.monotonic() - cut)
                        over.set()
            except (OSError, KeyError) as e:
                trouble = repr(e)
            over.wait(0.1)
        return trouble

    def write(door: str) -> None:
        """Until the swarm takes a write, which needs a leader and a majority."""
        for number in itertools.count():
            config = {"Name": f"bench-{doors.index(door)}-{number}", "Data": "eA=="}
            try:
                call(door, "POST", "/v1.41/configs/create", config, 2.0)
            except OSError:
                if over.wait(0.1) or "written" in found:
                    return
            else:
                found.setdefault("written", time.monotonic() - cut)
                return

    with ThreadPoolExecutor() as pool:
        for door in doors:
            pool.submit(write, door)
        troubles = list(pool.map(watch, doors))
    if "replaced" not in found:
        raise NotWithin(f"replacements after the power cut: not within {POWER:.0f} s {troubles}")
    return found


def back(peer: Peer, host: LabHost, managers: int) -> float:
    """Power on to the host a ready manager again."""
    begun = time.monotonic()
    peer.lab.start(host.name, wait=False)
    until(f"{host.name} is back", lambda: peer.whole(managers))
    return time.monotonic() - begun


def floor(hosts: list[LabHost], image: str, count: int) -> float:
    """What the engines alone need to create and start so many containers, evenly spread, all asked at once."""
    network = "bench-floor"
    for host in hosts:
        call(host.engine_socket, "POST", "/v1.41/networks/create", {"Name": network})
    body: dict[str, Any] = {"Image": image, "Cmd": ["sleep", "1000000"], "HostConfig": {"NetworkMode": network}}

    def run(index: int) -> str:
        socket = hosts[index % len(hosts)].engine_socket
        made: str = call(socket, "POST", f"/v1.41/containers/create?name=floor-{index}", body, 120.0)["Id"]
        call(socket, "POST", f"/v1.41/containers/{made}/start", timeout=120.0)
        return made

    def end(index: int) -> None:
        call(hosts[index % len(hosts)].engine_socket, "DELETE", f"/v1.41/containers/floor-{index}?force=1")

    with ThreadPoolExecutor(count) as pool:
        begun = time.monotonic()
        list(pool.map(run, range(count)))
        took = time.monotonic() - begun
        list(pool.map(end, range(count)))
    for host in hosts:
        call(host.engine_socket, "DELETE", f"/v1.41/networks/{network}")
    return took
