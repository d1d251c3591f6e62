"""What is lost while hosts, tasks and daemons come and go, under a steady load.

    python bench/lossless.py [--requests 100000] [--rate 500] [--cuts 10] [--json build/bench/lossless.json]

Brings up a lab of its own (three managers, one worker) and a service of six tasks that end well (`load/server.py`).
Planned work goes round until so many requests were made through every host: updates in both orders, scaling, draining,
every daemon killed, another leader. Then power cuts, each with requests on connections of their own through the hosts
that are left. Prints what failed, what was delayed, and for how long after the cut.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from failover import IMAGE, Swarm, docker, get, push_image, until

from afterswarm.lab.hosts import LabHost
from afterswarm.lab.lab import Lab
from afterswarm.lab.power import inside

LOAD = Path(__file__).parent / "load"
PORT = 8080
REPLICAS = 6
LONG = 3600.0  # seconds after which a client gives up by itself
CUT = 8.0  # seconds of load around a power cut
RATE_OF_CUTS = 260  # requests a second: 2,000 and more around each cut
INTERPRETER = sorted({"/usr", "/lib", "/lib64", sys.base_prefix, str(LOAD)})


@contextlib.contextmanager
def load(hosts: Sequence[LabHost], rate: int, *flags: str) -> Iterator[dict[str, Any]]:
    """A client through these hosts while the block runs; afterwards, what became of its requests."""
    said: dict[str, Any] = {}
    argv = [sys.executable, str(LOAD / "client.py"), *flags, str(PORT), str(rate), str(LONG)]
    with subprocess.Popen([*argv, *(h.address for h in hosts)], stdout=subprocess.PIPE, text=True) as client:
        try:
            yield said
        finally:
            client.send_signal(signal.SIGTERM)
            assert client.stdout
            said.update(json.loads(client.stdout.read() or "{}"))


class Work:
    """The planned work, on a swarm with the service `load`."""

    def __init__(self, swarm: Swarm) -> None:
        self.swarm = swarm
        self.version = 0
        mounts = [f"--mount=type=bind,source={p},target={p},readonly" for p in INTERPRETER if Path(p).exists()]
        docker(
            self.first, "service", "create", "-d", "--name", "load", "--replicas", str(REPLICAS),
            "--publish", f"{PORT}:80", *mounts, "--update-parallelism", "2", "--update-monitor", "1s",
            "--health-cmd", "busybox test -f /tmp/up", "--health-interval", "1s", "--health-retries", "5",
            IMAGE, os.path.realpath(sys.executable), str(LOAD / "server.py"),
        )  # fmt: skip
        self.settled()

    @property
    def first(self) -> LabHost:
        return self.swarm.hosts[0]

    def running(self, witness: LabHost | None = None) -> list[str]:
        """The nodes of running tasks."""
        tasks = get(witness or self.first, "/tasks")
        return [t["NodeID"] for t in tasks if t["Status"]["State"] == t["DesiredState"] == "running"]

    def settled(self, replicas: int = REPLICAS, witness: LabHost | None = None) -> None:
        until(f"{replicas} tasks run", lambda: len(self.running(witness)) == replicas)

    def update(self, order: str) -> None:
        self.version += 1
        docker(self.first, "service", "update", "-d", "--update-order", order, "--env-add", f"V={self.version}", "load")

        def over() -> bool:
            [service] = get(self.first, "/services")
            return (service.get("UpdateStatus") or {}).get("State") == "completed"

        until("the update is over", over)
        self.settled()

    def scale(self) -> None:
        for replicas in (2, REPLICAS):
            docker(self.first, "service", "scale", "-d", f"load={replicas}")
            self.settled(replicas)

    def drain(self) -> None:
        host = self.swarm.hosts[-1]
        node = next(n["ID"] for n in get(self.first, "/nodes") if n["Description"]["Hostname"] == host.name)
        docker(self.first, "node", "update", "--availability", "drain", host.name)
        until("the host is empty", lambda: node not in self.running())
        self.settled()
        docker(self.first, "node", "update", "--availability", "active", host.name)

    def restart_daemons(self) -> None:
        for host in self.swarm.hosts:
            before = daemon(host)
            subprocess.run(inside(host, ["kill", "-KILL", str(before)]), check=True)
            until("another daemon", lambda: daemon(host) not in (0, before))  # noqa: B023
            self.swarm.whole()

    def change_leader(self) -> None:
        leads = self.swarm.leader()
        host = next(h for h in self.swarm.hosts if h.name == leads)
        witness = next(h for h in self.swarm.hosts[:3] if h.name != leads)
        subprocess.run(inside(host, ["kill", "-STOP", str(daemon(host))]), check=True)
        try:

            def another() -> bool:
                nodes = get(witness, "/nodes")
                now = [n["Description"]["Hostname"] for n in nodes if (n.get("ManagerStatus") or {}).get("Leader")]
                return now not in ([], [leads])

            until("another manager leads", another)
        finally:
            subprocess.run(inside(host, ["kill", "-CONT", str(daemon(host))]), check=True)
        self.swarm.whole()

    def once(self) -> list[tuple[float, str]]:
        """When each piece of work began, in seconds since the epoch, and what it was."""
        pieces: dict[str, Callable[[], None]] = {
            "update, start-first": lambda: self.update("start-first"),
            "scale": self.scale,
            "drain": self.drain,
            "update, stop-first": lambda: self.update("stop-first"),
            "another leader": self.change_leader,
            "daemons killed": self.restart_daemons,
        }
        begun = []
        for name, work in pieces.items():
            begun.append((time.time(), name))
            work()
            print(f"{name}: {time.time() - begun[-1][0]:.1f} s", flush=True)
        return begun

    def power_cut(self, round_: int) -> dict[str, Any]:
        victim = self.swarm.victim(("worker", "manager", "leader")[round_ % 3], round_)
        others = [h for h in self.swarm.hosts if h.index != victim.index]
        with load(others, RATE_OF_CUTS, "--own") as said:
            time.sleep(1)
            self.swarm.lab.kill(victim.name)
            cut = time.time()  # the link is down; until then its kernel could still refuse
            time.sleep(CUT - 1)
        hosts = self.swarm.hosts
        self.swarm.hosts = [self.swarm.lab.start(h.name) if h.index == victim.index else h for h in hosts]
        self.swarm.whole()
        self.settled()
        delayed = [when - cut for when in said["delayed_at"] if when > cut]
        return {
            "victim": victim.name,
            "requests": said["requests"],
            "failed": sum(when > cut for when in said["failed_at"]),
            "lost_with_the_host": sum(when <= cut for when in said["failed_at"]),  # it was answering them
            "delayed": len(delayed),
            "window_seconds": round(max(delayed, default=0.0), 3),
            "longest_delay_seconds": said["slowest_seconds"],
        }


def daemon(host: LabHost) -> int:
    """The pid of a host's daemon, as the host numbers it; 0 while there is none."""
    rows = subprocess.run(inside(host, ["ps", "-eo", "pid=,args="]), capture_output=True, text=True, check=True).stdout
    for row in rows.splitlines():
        pid, _, command = row.strip().partition(" ")
        if re.match(r"\S*python\S* -m afterswarm\.cli\.main daemon", command):
            return int(pid)
    return 0


def planned(work: Work, requests: int, rate: int) -> dict[str, Any]:
    began = time.monotonic()
    rounds = 0
    pieces: list[tuple[float, str]] = []
    with load(work.swarm.hosts, rate) as said:
        while (time.monotonic() - began) * rate < requests:
            pieces += work.once()
            rounds += 1
            print(f"planned work, round {rounds}: {time.monotonic() - began:.0f} s", flush=True)

    def during(when: float) -> str:
        begun, name = max((piece for piece in pieces if piece[0] <= when), default=(when, "at rest"))
        return f"{name}, {when - begun:.1f} s on"

    slow = Counter(during(when).partition(",")[0] for when in said["delayed_at"])
    return {
        "rounds": rounds,
        **{k: v for k, v in said.items() if not k.endswith("_at")},
        "failed_in": [during(when) for when in said["failed_at"]],
        "slower_than_half_a_second_in": dict(slow),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="what is lost under a steady load")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument("--cuts", type=int, default=10)
    parser.add_argument("--json", type=Path, default=Path("build/bench/lossless.json"))
    args = parser.parse_args()
    lab = Lab()
    if lab.read().hosts:
        raise SystemExit("a lab is up already; `afterswarm lab down` removes it")
    found: dict[str, Any] = {"machine": {"cores": os.cpu_count(), "kernel": platform.release()}, "power_cuts": []}
    try:
        hosts = lab.up(4)
        push_image(hosts[0], hosts)
        work = Work(Swarm(lab, hosts))
        found["planned"] = planned(work, args.requests, args.rate)
        print(json.dumps(found["planned"]), flush=True)
        for round_ in range(args.cuts):
            found["power_cuts"].append(work.power_cut(round_))
            print(json.dumps(found["power_cuts"][-1]), flush=True)
    finally:
        lab.down()
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(found, indent=2) + "\n")
    print(f"\n{args.json}")


if __name__ == "__main__":
    main()
